"""Do attnext's layers behave as Keras's on this back end? Run by test_keras_layers.py, for each."""

import itertools

import keras
import numpy as np
import pytest

import attnext.keras

# Keras's variables do not know NumPy 2's protocol.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

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


def model_of(layer, is_many_headed):
    q, v = keras.Input((5, 4)), keras.Input((7, 4))
    out = layer(q, v, use_causal_mask=True) if is_many_headed else layer([q, v])
    return keras.Model([q, v], keras.layers.Dense(3, name="dense")(out))


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


LAYERS = [
    (attnext.keras.Attention, {}),
    (attnext.keras.AdditiveAttention, {}),
    (attnext.keras.MultiHeadAttention, {"num_heads": 2, "key_dim": 4}),
]


def call(layer, q, v, **arguments):
    is_many_headed = isinstance(layer, keras.layers.MultiHeadAttention)
    return layer(q, v, **arguments) if is_many_headed else layer([q, v], **arguments)


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
