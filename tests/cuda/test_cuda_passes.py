"""Do the passes beside forward and backward agree with the reference, and with the CPU's bits?"""

import numpy as np
import pytest

import attnext
from attnext import reference
from cases import CASES
from draws import normal, problem
from test_cuda_grid import smaller
from test_functions import packed_weights_in_c
from tolerance import WIDER, check

CORE = [smaller(case) for case in CASES if case.is_core]


def drawn(case, dtype):
    x = case.inputs(dtype, attnext.AdditiveScore)
    x.options.pop("dropout", None), x.options.pop("seed", None)
    return x


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_weights(case, dtype, backend):
    x = drawn(case, dtype)
    num_rows = x.q.shape[{"bhsd": -2, "bshd": -3, "thd": 0}[case.layout]]
    rows = [4, 0, -1, 2, 2] if num_rows > 4 else None
    actual = attnext.attention_weights(x.q, x.k, rows=rows, backend=backend, **x.options)
    truth = reference.attention_weights(x.q, x.k, rows=rows, dtype=WIDER[dtype], **x.options)
    naive = reference.attention_weights(x.q, x.k, rows=rows, dtype=x.q.dtype, **x.options)
    lse = reference.attention_stats(x.q, x.k, dtype=WIDER[dtype], **x.options).lse
    check("p", actual, truth, naive, x, lse=lse)


def test_packed_weights_in_c(emulated):
    p, truth = packed_weights_in_c(backend=3)
    np.testing.assert_allclose(p, truth, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_stats(case, dtype, backend):
    x = drawn(case, dtype)
    actual = attnext.attention_stats(x.q, x.k, backend=backend, **x.options)
    truth = reference.attention_stats(x.q, x.k, dtype=WIDER[dtype], **x.options)
    naive = reference.attention_stats(x.q, x.k, dtype=x.q.dtype, **x.options)
    for name in truth._fields:
        tensors = (getattr(stats, name) for stats in (actual, truth, naive))
        check(name, *tensors, x, lse=truth.lse)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_merge(dtype, backend):
    q, k, v = problem(dtype=dtype)
    parts = [
        attnext.attention(q, k[..., i::3, :], v[..., i::3, :], return_lse=True) for i in range(3)
    ]
    actual = attnext.merge_attention(*zip(*parts, strict=True), backend=backend)
    expected = attnext.merge_attention(*zip(*parts, strict=True))
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3 if dtype == np.float16 else 2e-6)


def test_merge_of_nothing_visible(backend):
    q, k, v = problem(dtype=np.float32)
    empty = attnext.attention(q, k, v, mask=np.zeros((1, 1), bool), return_lse=True)
    full = attnext.attention(q, k, v, return_lse=True)
    out, lse = attnext.merge_attention(*zip(empty, full, strict=True), backend=backend)
    np.testing.assert_allclose(out, full[0], rtol=1e-6)
    out, lse = attnext.merge_attention(*zip(empty, empty, strict=True), backend=backend)
    assert not out.any()
    assert np.isneginf(lse).all()


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (4, 9), (1, 1, 33, 130)])
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_dropout_bits_are_those_of_the_cpu(shape, probability, backend):
    for stream in (0, 1):
        drawn_bits = [
            attnext.dropout_mask(shape, probability, 2**63 + 5, stream=stream, backend=where)
            for where in (backend, "cpu")
        ]
        assert np.array_equal(*drawn_bits)


def test_both_directions(backend):
    q, k, v_k = problem(seqlen_q=9, seqlen_k=21, dtype=np.float32)
    v_q, options = normal(2, 4, 9, 16, seed=4, dtype=np.float32), {"causal": True, "softcap": 2.0}
    results = attnext.bidirectional_attention(
        q, k, v_q, v_k, return_lse=True, backend=backend, **options
    )
    expected = attnext.bidirectional_attention(q, k, v_q, v_k, return_lse=True, **options)
    for ours, theirs in zip(results, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    douts = results[:2]
    grads = attnext.bidirectional_attention_backward(
        *douts, q, k, v_q, v_k, *results, backend=backend, **options
    )
    truth = attnext.bidirectional_attention_backward(*douts, q, k, v_q, v_k, *results, **options)
    for ours, theirs in zip(grads, truth, strict=True):
        if theirs is not None:
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_vjp_keeps_an_unrounded_out(backend):
    q, k, v = problem(dtype=np.float16)
    out, vjp = attnext.attention_vjp(q, k, v, causal=True, backend=backend)
    grads = vjp(np.ones_like(out))
    truth = attnext.attention_vjp(q, k, v, causal=True)[1](np.ones_like(out))
    assert grads.dq.dtype == np.float16
    np.testing.assert_allclose(grads.dv.astype(float), truth.dv.astype(float), rtol=2e-2, atol=2e-3)


def test_out_is_filled_where_it_is(backend):
    q, k, v = problem(dtype=np.float32)
    memory = np.full((2, 4, 9, 33), 7, np.float32)
    out = memory[..., 1::2]
    assert attnext.attention(q, k, v, out=out, backend=backend) is out
    np.testing.assert_allclose(out, attnext.attention(q, k, v), rtol=1e-5, atol=1e-6)
    assert (memory[..., ::2] == 7).all()


def test_results_repeat_bit_for_bit(backend):
    q, k, v = problem(seqlen_q=40, seqlen_k=90, dtype=np.float32)

    def run():
        out, lse = attnext.attention(q, k, v, causal=True, return_lse=True, backend=backend)
        options = {"causal": True, "backend": backend}
        grads = attnext.attention_backward(out, q, k, v, out, lse, **options)
        return [x.tobytes() for x in (out, lse, *grads[:3])]

    assert run() == run()


def test_large_arrays_are_staged_in_pieces(backend):
    # Keys beyond their lengths are carried along, and never computed with: 34 MB in five pieces.
    q, k, v = problem(seqlen_q=2, seqlen_k=140_000, dtype=np.float32, heads=(2, 2))
    k[:, :, 20:], v[:, :, 20:] = np.nan, np.nan
    lengths = np.array([20, 7])
    out = attnext.attention(q, k, v, kv_lengths=lengths, backend=backend)
    np.testing.assert_allclose(out, attnext.attention(q, k, v, kv_lengths=lengths), rtol=1e-4)


def test_explain_names_the_path(backend):
    facts = attnext.explain(*problem(dtype=np.float64), backend=backend)
    assert facts["backend"] == backend
    assert facts["path"] == "simt"
    assert facts["memory"] == "staged through the device"


def test_the_back_end_is_listed(backend):
    assert {found.name for found in attnext.backends()} >= {"cpu", "cuda", backend}
