"""Do attnext's layers keep to Keras's ways? Run by test_keras_layers.py on each back end."""

import keras
import numpy as np
import pytest
from layer_pairs import LAYERS, call, draw, model_of, needs_training, to_numpy, weights_like

import attnext.keras

# Keras's variables do not know NumPy 2's protocol.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def visible(**arguments):
    """Which of 5 keys each of 3 queries sees."""
    q, k, v = np.zeros((1, 3, 1)), np.zeros((1, 5, 1)), np.eye(5)[None]
    mask = arguments.pop("mask", None)
    return to_numpy(attnext.keras.Attention()([q, v, k], mask=mask, **arguments))[0] > 0


def test_causal_corner_is_top_left():
    assert np.array_equal(visible(use_causal_mask=True), np.tri(3, 5, dtype=bool))
    layer = attnext.keras.MultiHeadAttention(1, 2)
    q, k = draw((1, 3, 4), (1, 5, 4))
    _, scores = layer(q, k, use_causal_mask=True, return_attention_scores=True)
    assert np.array_equal(to_numpy(scores)[0, 0] > 0, np.tri(3, 5, dtype=bool))


def test_a_mask_says_who_attends():
    v_mask = np.array([[True, False, True, True, False]])
    assert np.array_equal(visible(mask=[None, v_mask]), np.repeat(v_mask, 3, 0))
    assert np.array_equal(
        visible(mask=[np.array([[True, False, True]]), v_mask]),
        np.array([[True], [False], [True]]) & v_mask,
    )


def test_a_query_without_keys_gets_zero_where_keras_lets_it_see_all():
    q, v = draw((1, 3, 4), (1, 5, 4))
    nothing = np.zeros((1, 5), bool)
    ours = attnext.keras.Attention()([q, v], mask=[None, nothing])
    theirs = keras.layers.Attention()([q, v], mask=[None, nothing])
    assert not to_numpy(ours).any()
    assert to_numpy(theirs).all()


def test_scale():
    q, v = draw((1, 3, 16), (1, 5, 16))
    e = np.exp(q[0] @ v[0].T)
    out = e / e.sum(1, keepdims=True) @ v[0]
    assert np.allclose(to_numpy(attnext.keras.Attention()([q, v]))[0], out, rtol=1e-4, atol=1e-5)


def test_sliding_window_is_symmetric_and_excludes_its_own_size():
    (x,) = draw((1, 6, 8))
    layer = attnext.keras.MultiHeadAttention(2, 4, sliding_window=2)
    _, scores = layer(x, x, return_attention_scores=True)
    distance = abs(np.subtract.outer(np.arange(6), np.arange(6)))
    assert np.array_equal(to_numpy(scores)[0, 0] > 0, distance < 2)
    _, scores = layer(x, x, return_attention_scores=True, use_causal_mask=True)
    assert np.array_equal(to_numpy(scores)[0, 0] > 0, (distance < 2) & np.tri(6, dtype=bool))


@pytest.mark.parametrize(("make", "options"), LAYERS)
def test_dropout(make, options):
    q, v = draw((2, 50, 4), (2, 70, 4))
    layer = make(dropout=0.5, seed=3, **options)
    still = to_numpy(call(layer, q, v))
    assert np.array_equal(to_numpy(call(layer, q, v, training=False)), still)
    first, second = (to_numpy(call(layer, q, v, training=True)) for _ in range(2))
    assert not np.allclose(first, still, atol=1e-3)
    assert not np.allclose(first, second, atol=1e-3)
    again = make(dropout=0.5, seed=3, **options)
    again.build([q.shape, v.shape]) if "num_heads" not in options else again.build(q.shape, v.shape)
    again.set_weights(layer.get_weights())
    assert np.array_equal(to_numpy(call(again, q, v, training=True)), first)
    mean = np.mean([to_numpy(call(layer, q, v, training=True)) for _ in range(60)], 0)
    assert np.abs(mean - still).mean() < 0.5 * np.abs(first - still).mean()


@needs_training
@pytest.mark.parametrize(("make", "options"), LAYERS)
def test_training_with_dropout(make, options):
    """Seeds are drawn inside compiled steps too."""
    losses = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        layer = make(dropout=0.3, seed=3, **options)
        model = model_of(layer, "num_heads" in options)
        model.set_weights(weights_like(model))
        model.compile(keras.optimizers.SGD(0.01), "mse")
        q, v, target = draw((8, 5, 4), (8, 7, 4), (8, 5, 3))
        history = model.fit([q, v], target, epochs=3, batch_size=4, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
    assert losses[0] == losses[1]
    assert np.isfinite(losses).all()


def test_scores_with_dropout():
    q, v = draw((2, 5, 4), (2, 7, 4))
    layer = attnext.keras.Attention(dropout=0.5, seed=1)
    out, scores = layer([q, v], training=True, return_attention_scores=True)
    assert np.allclose(to_numpy(scores) @ v, to_numpy(out), atol=1e-5)
    assert (to_numpy(scores) == 0).any()
    many = attnext.keras.MultiHeadAttention(2, 4, dropout=0.5)
    _, scores = many(q, v, training=True, return_attention_scores=True)
    assert np.allclose(to_numpy(scores).sum(-1), 1, atol=1e-5)  # Keras's are those before dropout


@pytest.mark.parametrize(("make", "options"), LAYERS)
def test_configuration(make, options):
    options = {**options, "dropout": 0.25, "name": "looking"}
    layer = make(**options)
    again = make.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert type(again) is make
    serialized = keras.saving.serialize_keras_object(layer)
    assert serialized["registered_name"] == f"attnext>{make.__name__}"
    assert type(keras.saving.deserialize_keras_object(serialized)) is make


@pytest.mark.parametrize(("make", "options"), LAYERS)
def test_saved_models(make, options, tmp_path):
    model = model_of(make(**options), "num_heads" in options)
    model.set_weights(weights_like(model))
    inputs = draw((2, 5, 4), (2, 7, 4))
    expected = model.predict(inputs, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert np.allclose(loaded.predict(inputs, verbose=0), expected, atol=1e-6)
    assert any(type(layer) is make for layer in loaded.layers)


@pytest.mark.parametrize(
    "make", [attnext.keras.MultiHeadAttention, keras.layers.MultiHeadAttention]
)
def test_masks_of_an_embedding(make):
    if keras.backend.backend() == "numpy":
        pytest.skip("an array of NumPy carries no mask")
    keras.utils.set_random_seed(0)
    words, other = np.array([[1, 2, 3, 0, 0], [3, 3, 1, 1, 2]]), np.array([[5, 4, 0], [3, 0, 0]])
    q, v = (keras.layers.Embedding(6, 8, mask_zero=True)(x) for x in (words, other))
    layer = make(num_heads=2, key_dim=4)
    out, scores = layer(q, v, return_attention_scores=True)
    assert np.array_equal(to_numpy(out._keras_mask), words > 0)
    seen = to_numpy(scores)[:, 0] > 0
    rows = words > 0
    assert np.array_equal(seen[rows], np.repeat((other > 0)[:, None], 5, 1)[rows])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize(("make", "options"), LAYERS)
def test_dtypes(make, options, dtype):
    if dtype == "float64" and keras.backend.backend() in ("jax", "numpy"):
        pytest.skip("this back end of Keras makes float32 of float64")
    q, v = draw((2, 5, 4), (2, 7, 4))
    wide, narrow = make(**options), make(dtype=dtype, **options)
    expected = call(wide, q, v)
    call(narrow, q, v)
    narrow.set_weights(wide.get_weights())
    out = call(narrow, *(keras.ops.cast(x, dtype) for x in (q, v)))
    assert keras.backend.standardize_dtype(out.dtype) == dtype
    assert np.allclose(to_numpy(out).astype("float32"), to_numpy(expected), atol=5e-2)


def test_a_subclass_of_its_own_gets_all_of_the_mask():
    seen = []

    class Watching(attnext.keras.MultiHeadAttention):
        def _compute_attention(self, query, key, value, attention_mask=None, *others):
            seen.append(to_numpy(attention_mask))
            return super()._compute_attention(query, key, value, attention_mask, *others)

    (x,) = draw((1, 5, 8))
    Watching(2, 4, sliding_window=2)(x, x, use_causal_mask=True)
    distance = np.subtract.outer(np.arange(5), np.arange(5))
    assert np.array_equal(seen[0][0], (distance >= 0) & (distance < 2))


def test_shapes_of_symbolic_calls():
    q, v = keras.Input((5, 4)), keras.Input((7, 4))
    for make, options in LAYERS:
        out, scores = call(make(**options), q, v, return_attention_scores=True)
        assert out.shape == (None, 5, 4)
        assert scores.shape[-2] == 5


@pytest.mark.parametrize("make", [attnext.keras.Attention, attnext.keras.AdditiveAttention])
def test_wrong_inputs_are_refused_as_by_keras(make):
    (x,) = draw((1, 3, 4))
    for arguments, message in (
        ((x,), "must be called on a list"),
        (([x] * 4,), "length 2 or 3"),
        (([x, x], x), "mask must be a list"),
    ):
        with pytest.raises(ValueError, match=message):
            make()(*arguments)
