"""Do queries and keys attend each other by one score matrix, forward and backward?"""

import numpy as np
import pytest

import attnext
from attnext import reference
from draws import normal, problem

JOINT = {
    "plain": {},
    "gqa_rich": {
        "softcap": 2.0, "bias": normal(4, 9, 13), "mask": np.arange(13) > 1, "sinks": normal(4),
        "alibi_slopes": np.full(4, 0.1),
    },
    "causal": {"causal": True, "scale": np.array([0.1, 0.5, 1.0, 2.0])},
    "top_left_window": {"causal": "top_left", "window": (4, 0)},
    "window_offset": {"window": (2, 5), "q_offset": np.array([1, -3])},
    "lengths": {"q_lengths": np.array([9, 2]), "kv_lengths": np.array([0, 13]), "sinks": normal(4)},
    "dropout": {"dropout": 0.3, "seed": 17},
    "cosine": {"score": "cosine", "scale": 4.0},
    "neg_l2": {"score": "neg_l2"},
    "additive": {"score": attnext.AdditiveScore(normal(4, 16), normal(4, 16, seed=9))},
    "bshd": {"layout": "bshd", "bias": normal(1, 9, 1)},
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", JOINT)
def test_bidirectional(name, dtype):
    options = JOINT[name]
    q, k, v_k = problem(9, 13, dtype=dtype)
    v_q = normal(2, 4, 9, 5, seed=4, dtype=dtype)
    if options.get("layout") == "bshd":
        q, k, v_q, v_k = (np.swapaxes(x, 1, 2) for x in (q, k, v_q, v_k))
    found = attnext.bidirectional_attention(q, k, v_q, v_k, return_lse=True, **options)
    truth = reference.bidirectional_attention(q, k, v_q, v_k, return_lse=True, **options)
    weights = [normal(*x.shape, seed=n).astype(dtype) for n, x in enumerate(truth[:2])]

    def gradients(library, results):
        return library.bidirectional_attention_backward(
            *weights, q, k, v_q, v_k, *results, **options
        )

    bound = 1e-11 if dtype == np.float64 else 2e-5
    for a, b in zip(found, truth, strict=True):
        assert a.shape == b.shape
        assert np.array_equal(np.isinf(a), np.isinf(b))
        assert np.abs(np.where(np.isinf(b), 0, a) - np.where(np.isinf(b), 0, b)).max() < bound
    expected, actual = gradients(reference, truth), gradients(attnext, found)
    for field, b in expected._asdict().items():
        a = getattr(actual, field)
        assert (a is None) == (b is None), field
        assert b is None or np.abs(a - b).max() <= bound * max(1, np.abs(b).max()), field


def test_bidirectional_is_attention_twice():
    q, k, v_k = problem(9, 13, heads=(2, 2))
    v_q = normal(2, 2, 9, 5)
    out_q, out_k = attnext.bidirectional_attention(q, k, v_q, v_k)
    assert np.allclose(out_q, attnext.attention(q, k, v_k), rtol=0, atol=1e-13)
    assert np.allclose(out_k, attnext.attention(k, q, v_q), rtol=0, atol=1e-13)


@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_gradients_of_other_libraries(library):
    """Directions are added in place where arrays can change, and as well where they cannot."""
    xp = pytest.importorskip(library)
    arrays = [*problem(9, 13, dtype=np.float32), normal(2, 4, 9, 5, seed=4, dtype=np.float32)]
    options = {"scale": np.full(4, 0.3, np.float32), "bias": normal(4, 9, 13, dtype=np.float32)}

    def gradients(arrays, options):
        q, k, v_k, v_q = arrays
        results = attnext.bidirectional_attention(q, k, v_q, v_k, return_lse=True, **options)
        return attnext.bidirectional_attention_backward(
            *results[:2], q, k, v_q, v_k, *results, **options
        )

    expected = gradients(arrays, options)
    found = gradients(
        [xp.asarray(x) for x in arrays], {name: xp.asarray(x) for name, x in options.items()}
    )
    for name, a, b in zip(expected._fields, found, expected, strict=True):
        assert (a is None) == (b is None), name
        assert b is None or np.abs(np.asarray(a) - b).max() < 1e-5, name
