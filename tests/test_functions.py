"""Are the functions beside attention right: vjp, weights, statistics, merging, pooling?"""

from itertools import pairwise

import numpy as np
import pytest

import attnext
import c_interface
from attnext import reference
from draws import FLOATS, normal, problem


def test_vjp_is_backward():
    q, k, v = problem()
    options = {"causal": True, "sinks": normal(4), "scale": np.array([0.1, 0.2, 0.3, 0.4])}
    out, lse = attnext.attention(q, k, v, return_lse=True, **options)
    again, vjp = attnext.attention_vjp(q, k, v, **options)
    assert np.array_equal(out, again)
    dout, dlse = normal(*out.shape, seed=5), normal(*lse.shape, seed=6)
    expected = attnext.attention_backward(dout, q, k, v, out, lse, dlse=dlse, **options)
    for name, a, b in zip(expected._fields, vjp(dout, dlse), expected, strict=True):
        assert (a is None) == (b is None), name
        assert a is None or np.array_equal(a, b), name


RICH = {
    "causal": True, "softcap": 3.0, "mask": np.arange(70) % 7 > 0, "bias": normal(4, 9, 70),
    "alibi_slopes": np.array([0.1, 0.2, 0.3, 0.4]), "sinks": np.array([0.1, 2, -1, 0]),
}  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "options",
    [{}, RICH, {"kv_lengths": np.array([50, 0]), "q_lengths": np.array([9, 4])}],
    ids=["plain", "rich", "lengths"],
)
@pytest.mark.parametrize("rows", [None, [0], [0, 3, 3, 8], [8, -9, 2], []], ids=str)
def test_weights(rows, options, dtype):
    q, k, _ = problem(dtype=dtype)
    p = attnext.attention_weights(q, k, rows=rows, **options)
    truth = reference.attention_weights(q, k, rows=rows, **options)
    assert p.shape == truth.shape == (2, 4, 9 if rows is None else len(rows), 70)
    assert np.abs(p.astype(np.float64) - truth).max(initial=0) < (
        1e-12 if dtype == np.float64 else 1e-2 if p.dtype.itemsize == 2 else 1e-5
    )


def test_weights_of_packed_sequences():
    q, k = normal(7, 4, 8), normal(12, 2, 8, seed=1)
    packing = {
        "layout": "thd",
        "cu_seqlens_q": np.array([0, 3, 7]),
        "cu_seqlens_k": np.array([0, 5, 12]),
    }
    p = attnext.attention_weights(q, k, rows=[6, 1, -7], **packing)
    assert p.shape == (4, 3, 7)
    assert (p[:, 1:, 5:] == 0).all()
    assert np.allclose(
        p, reference.attention_weights(q, k, **packing)[:, [6, 1, 0]], rtol=0, atol=1e-13
    )


def packed_weights_in_c(backend):
    """Of some rows, into memory whose batch axis is of no use; what they should be."""
    q, k, rows = normal(1, 4, 7, 8), normal(1, 2, 12, 8, seed=1), np.array([6, 1, 0, 6])
    begins = np.array([0, 3, 3, 7]), np.array([0, 5, 5, 12])
    p = np.full((2, 4, 4, 7), 7.0)[:1]
    names = "cu_seqlens_q", "cu_seqlens_k"
    options = c_interface.Options(backend=backend, **dict(zip(names, begins, strict=True)))
    c_interface.call(c_interface.load(), "weights", q, k, options, rows, p)
    along = [x[0].swapaxes(0, 1) for x in (q, k)]
    packing = dict(zip(names, begins, strict=True), layout="thd")
    return p[0], reference.attention_weights(*along, rows=rows, **packing)


def test_packed_weights_in_c():
    p, truth = packed_weights_in_c(backend=1)
    np.testing.assert_allclose(p, truth, rtol=0, atol=1e-13)


def test_weights_make_out():
    q, k, v = problem()
    p = attnext.attention_weights(q, k, **RICH)
    assert np.allclose(
        p @ np.repeat(v, 2, axis=1), attnext.attention(q, k, v, **RICH), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "options",
    [{}, RICH, {"kv_lengths": np.array([50, 0]), "q_lengths": np.array([9, 4])}],
    ids=["plain", "rich", "lengths"],
)
def test_stats(options, dtype):
    q, k, _ = problem(dtype=dtype)
    found, truth = (
        attnext.attention_stats(q, k, **options),
        reference.attention_stats(q, k, **options),
    )
    assert found._fields == ("lse", "row_max", "entropy", "key_mass")
    for name, a, b in zip(found._fields, found, truth, strict=True):
        assert a.shape == b.shape, name
        assert a.dtype == (np.float64 if dtype == np.float64 else np.float32), name
        assert np.array_equal(np.isinf(a), np.isinf(b)), name
        finite = np.isfinite(b)
        assert np.abs(a[finite] - b[finite]).max(initial=0) < (
            1e-11 if dtype == np.float64 else 3e-5
        ), name


def test_stats_of_uniform_attention():
    q, k = np.zeros((1, 1, 5, 4)), np.zeros((1, 1, 8, 4))
    stats = attnext.attention_stats(q, k)
    assert np.allclose(stats.entropy, np.log(8))
    assert np.allclose(stats.lse, np.log(8))
    assert np.allclose(stats.key_mass, 5 / 8)
    assert (stats.row_max == 0).all()


def test_stats_of_packed_sequences():
    q, k = normal(7, 4, 8), normal(12, 2, 8, seed=1)
    packing = {
        "layout": "thd",
        "cu_seqlens_q": np.array([0, 3, 7]),
        "cu_seqlens_k": np.array([0, 12, 12]),
    }
    found, truth = (
        attnext.attention_stats(q, k, **packing),
        reference.attention_stats(q, k, **packing),
    )
    assert [x.shape for x in found] == [(4, 7), (4, 7), (4, 7), (4, 12)]
    for a, b in zip(found, truth, strict=True):
        assert np.allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("cuts", [(0, 70), (0, 30, 70), (0, 1, 1, 69, 70)], ids=str)
def test_merge(cuts, dtype):
    q, k, v = problem(dtype=dtype)
    parts = [
        attnext.attention(q, k[:, :, a:b], v[:, :, a:b], return_lse=True) for a, b in pairwise(cuts)
    ]
    out, lse = attnext.merge_attention(*zip(*parts, strict=True))
    truth, lse_truth = reference.attention(q, k, v, return_lse=True)
    bound = {np.float64: 1e-12, np.float32: 1e-5}.get(dtype, 3e-2)
    assert (out.dtype, lse.dtype) == (parts[0][0].dtype, parts[0][1].dtype)
    assert np.abs(out.astype(np.float64) - truth).max() < bound
    assert np.abs(lse - lse_truth).max() < max(1e-12, min(bound, 3e-6))


def test_merge_of_empty_parts():
    q, k, v = problem()
    full = attnext.attention(q, k, v, return_lse=True)
    none = attnext.attention(q, k[:, :, :0], v[:, :, :0], return_lse=True)
    out, lse = attnext.merge_attention([none[0], full[0], none[0]], [none[1], full[1], none[1]])
    assert np.allclose(out, full[0], rtol=0, atol=1e-14)
    assert np.allclose(lse, full[1], rtol=0, atol=1e-14)
    out, lse = attnext.merge_attention([none[0]] * 2, [none[1]] * 2)
    assert (out == 0).all()
    assert (lse == -np.inf).all()


@pytest.mark.parametrize("lengths", [None, [5, 0, 1]])
def test_pool(lengths):
    x, weight, values = normal(3, 5, 8), normal(8, seed=1), normal(3, 5, 2, seed=2)
    for own in (None, values):
        found = attnext.attention_pool(x, weight, values=own, lengths=lengths)
        assert np.allclose(
            found,
            reference.attention_pool(x, weight, values=own, lengths=lengths),
            rtol=0,
            atol=1e-13,
        )
    s = np.tanh(x) @ weight
    if lengths is None:
        p = np.exp(s) / np.exp(s).sum(-1, keepdims=True)
        assert np.allclose(attnext.attention_pool(x, weight), np.einsum("bs,bsd->bd", p, x))


def test_explain_names_kernel_and_reason():
    q, k, v = problem(dtype=np.float32)
    told = attnext.explain(q, k, v, causal=True)
    assert told["backend"] == "cpu"
    assert told["isa"] == attnext._core.isa()
    assert told["why"]
    assert told != attnext.explain(q, k, v, score="neg_l2")
