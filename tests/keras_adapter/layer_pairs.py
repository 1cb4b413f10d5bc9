"""What are the checks of the layers made of? Pairs of ours and Keras's, and what is put in."""

import keras
import numpy as np
import pytest

import attnext.keras

CAN_TRAIN = keras.backend.backend() != "numpy"
needs_training = pytest.mark.skipif(not CAN_TRAIN, reason="the numpy back end does not train")

PAIRS = {
    "dot": (attnext.keras.Attention, keras.layers.Attention, {}),
    "dot_scaled": (attnext.keras.Attention, keras.layers.Attention, {"use_scale": True}),
    "concat": (attnext.keras.Attention, keras.layers.Attention, {"score_mode": "concat"}),
    "concat_scaled": (
        attnext.keras.Attention,
        keras.layers.Attention,
        {"score_mode": "concat", "use_scale": True},
    ),
    "additive": (attnext.keras.AdditiveAttention, keras.layers.AdditiveAttention, {}),
    "additive_plain": (
        attnext.keras.AdditiveAttention,
        keras.layers.AdditiveAttention,
        {"use_scale": False},
    ),
}
MULTI_HEAD = {
    "plain": {},
    "value_dim": {"value_dim": 5, "use_bias": False},
    "gate": {"use_gate": True},
    "window": {"sliding_window": 2},
    "output_shape": {"output_shape": (2, 3)},
}


def draw(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype("float32") for shape in shapes]


def to_numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def weights_like(layer, seed=1):
    """Random weights: Keras's are mostly ones and zeros at first, which hides mistakes."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(w.shape).astype("float32") * 0.5 + 0.3 for w in layer.weights]


def both(ours, theirs, options, shapes):
    """The same layer twice, of attnext and of Keras, with the same weights."""
    layers = ours(**options), theirs(**options)
    for layer in layers:
        layer.build(shapes) if isinstance(shapes, list) else layer.build(*shapes)
        layer.set_weights(weights_like(layer))
    return layers


def model_of(layer, is_many_headed):
    q, v = keras.Input((5, 4)), keras.Input((7, 4))
    out = layer(q, v, use_causal_mask=True) if is_many_headed else layer([q, v])
    return keras.Model([q, v], keras.layers.Dense(3, name="dense")(out))


LAYERS = [
    (attnext.keras.Attention, {}),
    (attnext.keras.AdditiveAttention, {}),
    (attnext.keras.MultiHeadAttention, {"num_heads": 2, "key_dim": 4}),
]


def call(layer, q, v, **arguments):
    is_many_headed = isinstance(layer, keras.layers.MultiHeadAttention)
    return layer(q, v, **arguments) if is_many_headed else layer([q, v], **arguments)
