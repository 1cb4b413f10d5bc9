"""Do the corners hold: rows without keys, NaN and infinity, sinks?"""

import numpy as np
import pytest

import attnext
from draws import FLOATS, normal, problem


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "options",
    [
        {"mask": np.zeros((1, 1, 9, 1), bool)},
        {"bias": np.full((9, 1), -np.inf, np.float32)},
        {"window": (1, 1), "q_offset": 500},
        {"causal": True, "q_offset": -500},
        {"kv_lengths": np.array([0, 0])},
    ],
    ids=["mask", "bias", "window", "causal", "kv_lengths"],
)
def test_empty_row(options, dtype):
    q, k, v = problem(dtype=dtype)
    out, lse = attnext.attention(q, k, v, return_lse=True, **options)
    assert (out == 0).all()
    assert (lse == -np.inf).all()
    grads = attnext.attention_backward(
        np.ones_like(out), q, k, v, out, lse, dlse=np.ones_like(lse), **options
    )
    assert all((g == 0).all() for g in grads if g is not None)


def test_empty_row_among_others():
    q, k, v = problem()
    mask = np.ones((9, 70), bool)
    mask[[0, 4]] = False
    out = attnext.attention(q, k, v, mask=mask)
    rest = [1, 2, 3, 5, 6, 7, 8]
    assert (out[:, :, [0, 4]] == 0).all()
    assert np.allclose(out[:, :, rest], attnext.attention(q, k, v)[:, :, rest], rtol=0, atol=1e-13)


def test_empty_row_with_a_sink():
    q, k, v = problem()
    sinks = np.array([0.5, -1.0, 2.0, -np.inf])
    options = {"sinks": sinks, "mask": np.zeros((9, 70), bool)}
    out, lse = attnext.attention(q, k, v, return_lse=True, **options)
    assert (out == 0).all()
    assert np.array_equal(lse, np.broadcast_to(sinks[:, None], lse.shape))
    grads = attnext.attention_backward(
        np.ones_like(out), q, k, v, out, lse, dlse=np.ones_like(lse), **options
    )
    assert np.allclose(grads.dsinks, [18, 18, 18, 0])
    assert all((g == 0).all() for g in grads[:3])


def test_rows_beyond_their_length_do_not_exist():
    q, k, v = problem()
    options = {"q_lengths": np.array([3, 9]), "sinks": np.ones(4)}
    out, lse = attnext.attention(q, k, v, return_lse=True, **options)
    assert (out[0, :, 3:] == 0).all()
    assert (lse[0, :, 3:] == -np.inf).all()
    dout = np.ones_like(out)
    grads = attnext.attention_backward(dout, q, k, v, out, lse, **options)
    dout[0, :, 3:] = 1e6
    again = attnext.attention_backward(dout, q, k, v, out, lse, **options)
    assert (grads.dq[0, :, 3:] == 0).all()
    assert all(np.array_equal(a, b) for a, b in zip(grads, again, strict=True) if a is not None)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("seqlen_q", [1, 9, 40])
def test_nan_of_a_query_reaches_its_row_alone(seqlen_q, dtype):
    q, k, v = problem(seqlen_q, dtype=dtype)
    expected = attnext.attention(q, k, v)
    q[1, 2, seqlen_q // 2, 3] = np.nan
    out, lse = attnext.attention(q, k, v, return_lse=True)
    is_nan = np.isnan(out.astype(np.float64))
    assert is_nan[1, 2, seqlen_q // 2].all()
    assert np.isnan(lse[1, 2, seqlen_q // 2])
    is_nan[1, 2, seqlen_q // 2] = False
    assert not is_nan.any()
    out[1, 2, seqlen_q // 2] = expected[1, 2, seqlen_q // 2]
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("position", [0, 33, 69])
def test_nan_of_a_visible_key_or_value_reaches_out(position, dtype):
    for which in (1, 2):
        inputs = problem(dtype=dtype)
        inputs[which][:, :, position, 5] = np.nan
        out = attnext.attention(*inputs).astype(np.float64)
        assert np.isnan(out[..., 5] if which == 2 else out).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_lies_beyond_the_end_is_never_read(dtype):
    q, k, v = problem(dtype=dtype)
    kv_lengths = np.array([70, 21])
    out, vjp = attnext.attention_vjp(q, k, v, kv_lengths=kv_lengths)
    grads = vjp(out)
    k[1, :, 21:], v[1, :, 21:] = np.nan, np.inf
    again, vjp = attnext.attention_vjp(q, k, v, kv_lengths=kv_lengths)
    assert np.array_equal(out, again)
    assert all(np.array_equal(a, b) for a, b in zip(grads[:3], vjp(again)[:3], strict=True))
    assert (grads.dk[1, :, 21:] == 0).all()


def test_masked_keys_do_not_matter():
    q, k, v = problem()
    mask = np.arange(70) % 3 > 0
    expected = attnext.attention(q, k, v, mask=mask)
    k[:, :, ~mask] *= 1e3
    v[:, :, ~mask] += 1e3
    assert np.array_equal(attnext.attention(q, k, v, mask=mask), expected)


def test_nan_is_not_taken_for_masked():
    q, k, v = problem()
    q[:] = np.nan
    out, lse = attnext.attention(q, k, v, return_lse=True, causal=True)
    assert np.isnan(out).all()
    assert np.isnan(lse).all()


def test_infinite_logits():
    """Minus infinity among finite logits weighs nothing; alone, or plus infinity, it makes NaN."""
    q, v = np.ones((3, 1)), np.arange(4.0)[:, None]
    one_hidden = attnext.attention(q, np.array([[0.0], [-np.inf], [0.0], [0.0]]), v, scale=1.0)
    assert np.allclose(one_hidden, 5 / 3)
    for k in (np.full((4, 1), -np.inf), np.array([[0.0], [np.inf], [0.0], [0.0]])):
        assert np.isnan(attnext.attention(q, k, v, scale=1.0)).all()


def test_minus_infinite_bias_has_no_gradient():
    q, k, v = problem()
    bias = normal(9, 70)
    bias[:, ::5] = -np.inf
    out, vjp = attnext.attention_vjp(q, k, v, bias=bias)
    grads = vjp(normal(*out.shape))
    assert (grads.dbias[:, ::5] == 0).all()
    assert (grads.dbias[:, 1::5] != 0).all()
    assert all(np.isfinite(g).all() for g in grads if g is not None)


def test_softcap_does_not_leak_to_masked_keys():
    """Capping after the mask would make minus infinity a finite score."""
    q, k, v = problem()
    v[:, :, 40:] = 1e9
    out = attnext.attention(q, k, v, softcap=0.5, bias=np.where(np.arange(70) < 40, 0, -np.inf))
    assert np.abs(out).max() < 10


def test_large_scores_do_not_overflow():
    q, k, v = problem(dtype=np.float32)
    out, lse = attnext.attention(1e3 * q, 1e3 * k, v, return_lse=True)
    scores = np.einsum("bhid,bhjd->bhij", 1e3 * q, np.repeat(1e3 * k, 2, axis=1)) / 4
    best = scores.argmax(-1)
    assert np.allclose(lse, scores.max(-1), rtol=1e-5)
    margin = np.partition(scores, -2, axis=-1)
    is_clear = margin[..., -1] - margin[..., -2] > 100
    picked = np.take_along_axis(np.repeat(v, 2, axis=1), best[..., None], axis=2)
    assert is_clear.any()
    assert np.allclose(out[is_clear], picked[is_clear], rtol=1e-5)


def test_a_sink_is_a_key_without_value():
    q, k, v = problem(heads=(2, 2))
    sinks = np.array([0.7, -0.2])
    found = attnext.attention(q, k, v, sinks=sinks, return_lse=True)
    bias = np.concatenate([np.zeros((2, 1, 70)), sinks.reshape(2, 1, 1)], axis=-1)
    scoreless = np.concatenate([k, np.zeros_like(k[:, :, :1])], axis=2)
    valueless = np.concatenate([v, np.zeros_like(v[:, :, :1])], axis=2)
    expected = attnext.attention(q, scoreless, valueless, bias=bias, return_lse=True)
    assert all(np.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(found, expected, strict=True))
