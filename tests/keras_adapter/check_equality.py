"""Do attnext's layers compute what Keras's do? Run by test_keras_layers.py on each back end."""

import itertools

import keras
import numpy as np
import pytest
from layer_pairs import (
    MULTI_HEAD,
    PAIRS,
    both,
    draw,
    model_of,
    needs_training,
    to_numpy,
    weights_like,
)

import attnext.keras

# Keras's variables do not know NumPy 2's protocol.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("use_causal_mask", [False, True])
@pytest.mark.parametrize("with_masks", [False, True])
@pytest.mark.parametrize("with_key", [False, True])
def test_one_head_is_keras_s(kind, use_causal_mask, with_masks, with_key):
    q, v, k = draw((2, 5, 4), (2, 7, 4), (2, 7, 4))
    inputs = [q, v, k] if with_key else [q, v]
    mask = None
    if with_masks:
        q_mask, v_mask = np.ones((2, 5), bool), np.ones((2, 7), bool)
        q_mask[0, 3:], v_mask[1, 1::2] = False, False
        mask = [q_mask, v_mask]
    results = [
        layer(inputs, mask=mask, use_causal_mask=use_causal_mask, return_attention_scores=True)
        for layer in both(*PAIRS[kind], [x.shape for x in inputs])
    ]
    for x, y in zip(*results, strict=True):
        assert np.allclose(to_numpy(x), to_numpy(y), atol=2e-6)


@pytest.mark.parametrize("kind", MULTI_HEAD)
@pytest.mark.parametrize("use_causal_mask", [False, True])
@pytest.mark.parametrize("mask_rank", [0, 2, 3, 4])
def test_many_heads_are_keras_s(kind, use_causal_mask, mask_rank):
    q, v = draw((2, 5, 8), (2, 7, 8))
    options = {"num_heads": 2, "key_dim": 4, **MULTI_HEAD[kind]}
    mask = np.random.default_rng(1).random((2, 2, 5, 7)) < 0.7
    mask[..., 0] = True  # every query sees a key
    mask = {0: None, 2: mask[0, 0], 3: mask[:, 0], 4: mask}[mask_rank]
    if kind == "window":
        q, v, mask = (
            q,
            v[:, :5],
            mask if mask is None else (mask | np.eye(5, 7, dtype=bool))[..., :5],
        )
    layers = both(
        attnext.keras.MultiHeadAttention,
        keras.layers.MultiHeadAttention,
        options,
        (q.shape, v.shape),
    )
    arguments = {"attention_mask": mask, "use_causal_mask": use_causal_mask}
    # On JAX, Keras's layer takes a value_dim of its own only where it returns scores.
    out, (again, scores), theirs = (
        layers[0](q, v, **arguments),
        *(layer(q, v, return_attention_scores=True, **arguments) for layer in layers),
    )
    for x, y in ((out, theirs[0]), (again, theirs[0]), (scores, theirs[1])):
        assert np.allclose(to_numpy(x), to_numpy(y), atol=5e-6)


@pytest.mark.parametrize(
    ("attention_axes", "mask_shape"),
    [
        (None, None),
        (1, None),
        (2, None),
        ((1, 2), None),
        (2, (4, 2)),
        (2, (2, 3, 4, 2)),
        ((1, 2), (3, 4, 3, 2)),
    ],
)
def test_attention_axes(attention_axes, mask_shape):
    q, v = draw((2, 3, 4, 8), (2, 5, 4, 8) if attention_axes == 1 else (2, 3, 2, 8))
    mask = None
    if mask_shape is not None:
        mask = np.random.default_rng(1).random(mask_shape) < 0.7
        mask[..., 0] = True
    options = {"num_heads": 2, "key_dim": 4, "attention_axes": attention_axes}
    layers = both(
        attnext.keras.MultiHeadAttention,
        keras.layers.MultiHeadAttention,
        options,
        (q.shape, v.shape),
    )
    results = [layer(q, v, attention_mask=mask, return_attention_scores=True) for layer in layers]
    for x, y in zip(*results, strict=True):
        assert np.allclose(to_numpy(x), to_numpy(y), atol=5e-6)


def trained(make):
    """Weights after a few steps from weights that are the same for every layer of a kind."""
    layer = make()
    model = model_of(layer, isinstance(layer, keras.layers.MultiHeadAttention))
    model.set_weights(weights_like(model))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    q, v, target = draw((8, 5, 4), (8, 7, 4), (8, 5, 3))
    model.fit([q, v], target, epochs=3, batch_size=4, shuffle=False, verbose=0)
    return model.get_weights()


@needs_training
@pytest.mark.parametrize("kind", [*PAIRS, *MULTI_HEAD])
def test_training_is_keras_s(kind):
    if kind == "value_dim" and keras.backend.backend() == "jax":
        pytest.skip("on JAX, Keras's own layer does not train with a value_dim of its own")
    if kind in PAIRS:
        ours, theirs, options = PAIRS[kind]
    else:
        ours, theirs = attnext.keras.MultiHeadAttention, keras.layers.MultiHeadAttention
        options = {"num_heads": 2, "key_dim": 4, **MULTI_HEAD[kind]}
        options.pop("output_shape", None)
        if kind == "window":
            options["sliding_window"] = 4  # every query sees a key
    weights = [trained(lambda make=make: make(**options)) for make in (ours, theirs)]
    for x, y in zip(*weights, strict=True):
        assert np.allclose(x, y, atol=1e-5)


@needs_training
@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")  # no loss of the output
@pytest.mark.parametrize("kind", [*PAIRS, "many_heads"])
def test_scores_have_gradients(kind):
    class Spread(keras.layers.Layer):
        """How evenly attention is spread, made of the weights themselves."""

        def __init__(self, attend, **keywords):
            super().__init__(**keywords)
            self.project, self.attend = keras.layers.Dense(4), attend

        def build(self, shape):
            self.project.build(shape)
            shapes = (shape, shape) if kind == "many_heads" else ([shape, shape],)
            self.attend.build(*shapes)

        def call(self, q):
            q = self.project(q)
            arguments = (q, q) if kind == "many_heads" else ([q, q],)
            _, scores = self.attend(*arguments, return_attention_scores=True)
            return keras.ops.sum(scores**2, -1)

        def compute_output_shape(self, shape):
            return (shape[0], 2, shape[1]) if kind == "many_heads" else shape[:-1]

    ours, theirs, options = PAIRS.get(
        kind,
        (
            attnext.keras.MultiHeadAttention,
            keras.layers.MultiHeadAttention,
            {"num_heads": 2, "key_dim": 4},
        ),
    )
    (q,) = draw((4, 5, 4))
    weights = []
    for make in (ours, theirs):
        model = keras.Sequential([keras.Input((5, 4)), Spread(make(**options))])
        model.set_weights(weights_like(model))
        model.compile(keras.optimizers.SGD(0.5), "mse")
        model.fit(q, np.ones(model.output_shape[1:])[None].repeat(4, 0), verbose=0)
        weights.append(model.get_weights())
    assert not np.allclose(weights[0][0], weights_like(model)[0], atol=1e-4)
    for x, y in zip(*weights, strict=True):
        assert np.allclose(x, y, atol=1e-5)


def test_more_axes_of_a_batch():
    q, v = draw((2, 3, 5, 4), (2, 3, 7, 4))
    v_mask = np.random.default_rng(0).random((2, 3, 1, 7)) < 0.7
    for mask in (None, [None, v_mask]):
        results = [
            layer([q, v], mask=mask, return_attention_scores=True)
            for layer in (attnext.keras.Attention(), keras.layers.Attention())
        ]
        for x, y in zip(*results, strict=True):
            assert np.allclose(to_numpy(x), to_numpy(y), atol=1e-5)


def test_combinations():
    """Every option of the layer with every other, where a mistake in one would hide."""
    q, v = draw((2, 5, 8), (2, 5, 8))
    mask = np.random.default_rng(1).random((2, 5, 5)) < 0.6
    mask |= np.eye(5, dtype=bool)
    for window, causal, masked, gated in itertools.product((None, 3), *[(False, True)] * 3):
        options = {"num_heads": 2, "key_dim": 4, "sliding_window": window, "use_gate": gated}
        layers = both(
            attnext.keras.MultiHeadAttention,
            keras.layers.MultiHeadAttention,
            options,
            (q.shape, v.shape),
        )
        ours, theirs = (
            to_numpy(layer(q, v, attention_mask=mask if masked else None, use_causal_mask=causal))
            for layer in layers
        )
        assert np.allclose(ours, theirs, atol=5e-6), (window, causal, masked, gated)
