"""Do the corners hold: empty rows, NaN and infinity, sinks, dropout's bits, and the functions beside attention?"""

import attnext
import ml_dtypes
import numpy as np
import pytest
from attnext import reference

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def problem(seqlen_q=9, seqlen_k=70, dtype=np.float64, heads=(4, 2), dim=16):
    return [
        normal(2, heads[0], seqlen_q, dim, seed=1, dtype=dtype),
        normal(2, heads[1], seqlen_k, dim, seed=2, dtype=dtype),
        normal(2, heads[1], seqlen_k, dim, seed=3, dtype=dtype),
    ]


# Empty rows


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
    out, lse = attnext.attention(q, k, v, mask=mask, return_lse=True)
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


# NaN and infinity


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("seqlen_q", [1, 9, 40])
def test_nan_of_a_query_reaches_its_row_alone(seqlen_q, dtype):
    q, k, v = problem(seqlen_q, dtype=dtype)
    expected, _ = attnext.attention(q, k, v, return_lse=True)
    q[1, 2, seqlen_q // 2, 3] = np.nan
    out, lse = attnext.attention(q, k, v, return_lse=True)
    is_nan = np.isnan(out.astype(np.float64))
    assert is_nan[1, 2, seqlen_q // 2].all()
    assert np.isnan(lse[1, 2, seqlen_q // 2])
    is_nan[1, 2, seqlen_q // 2] = False
    assert not is_nan.any()
    assert np.array_equal(np.delete(out.reshape(-1, 16), np.ravel_multi_index((1, 2, seqlen_q // 2), out.shape[:3]), 0),
                          np.delete(expected.reshape(-1, 16), np.ravel_multi_index((1, 2, seqlen_q // 2), out.shape[:3]), 0))  # fmt: skip


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
    """Minus infinity among finite logits weighs nothing; alone, or plus infinity, it is not a number."""
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


# Sinks


def test_a_sink_is_a_key_without_value():
    q, k, v = problem(heads=(2, 2))
    sinks = np.array([0.7, -0.2])
    found = attnext.attention(q, k, v, sinks=sinks, return_lse=True)
    bias = np.concatenate([np.zeros((2, 1, 70)), sinks.reshape(2, 1, 1)], axis=-1)
    scoreless = np.concatenate([k, np.zeros_like(k[:, :, :1])], axis=2)
    valueless = np.concatenate([v, np.zeros_like(v[:, :, :1])], axis=2)
    expected = attnext.attention(q, scoreless, valueless, bias=bias, return_lse=True)
    assert all(np.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(found, expected, strict=True))


# Dropout


def test_dropout_bits_are_philox():
    """Words of Random123's known-answer file for Philox4x32-10."""
    from attnext.reference.dropout import philox

    assert [int(w) for w in philox((0, 0, 0, 0), 0)] == [
        0x6627E8D5,
        0xE169C58D,
        0xBC57AC4C,
        0x9B00DBD8,
    ]
    assert [int(w) for w in philox([0xFFFFFFFF] * 4, 2**64 - 1)] == [
        0x408F276D,
        0x41C83B0E,
        0xA20BC7C6,
        0x6D5451FD,
    ]
    counter, key = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), 0x299F31D0A4093822
    assert [int(w) for w in philox(counter, key)] == [
        0xD16CFE09,
        0x94FDCCEB,
        0x5001E420,
        0x24126EA1,
    ]


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 + 12345, 2**64 - 1])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 70, 133), (1, 2, 1, 1), (1, 1, 0, 4)])
def test_dropout_mask_is_the_definition(shape, seed):
    for dropout in (0.0, 0.1, 0.5, 1 - 2.0**-33, 1.0):
        found = attnext.dropout_mask(shape, dropout, seed)
        assert found.dtype == bool
        assert np.array_equal(found, reference.dropout_mask(shape, dropout, seed))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("seqlens", [(7, 13), (70, 300), (1, 1000)])
def test_attention_drops_what_dropout_mask_says(seqlens, dtype):
    """Values that are unit vectors read the mask off out, and off dv."""
    q, k = np.zeros((2, 2, seqlens[0], 1), dtype), np.zeros((2, 2, seqlens[1], 1), dtype)
    v = np.broadcast_to(np.eye(seqlens[1], dtype=dtype), (2, 2, seqlens[1], seqlens[1]))
    keep = attnext.dropout_mask((2, 2, *seqlens), 0.4, 99)
    out, vjp = attnext.attention_vjp(q, k, v, dropout=0.4, seed=99)
    assert np.array_equal(out != 0, keep)
    dout = np.zeros_like(out)
    dout[:, :, -1] = 1
    assert np.array_equal(vjp(dout).dv[..., 0] != 0, keep[:, :, -1])


def test_dropout_statistics():
    keep = attnext.dropout_mask((4, 8, 128, 256), 0.3, 42)
    spread = np.sqrt(0.3 * 0.7 / keep.size)
    assert abs(keep.mean() - 0.7) < 5 * spread
    for axis in range(4):
        means = keep.mean(tuple(other for other in range(4) if other != axis))
        assert np.abs(means - 0.7).max() < 6 * np.sqrt(0.21 * means.size / keep.size)
    assert abs(np.corrcoef(keep[..., :-1].ravel(), keep[..., 1:].ravel())[0, 1]) < 5 / np.sqrt(
        keep.size
    )
    assert (keep != attnext.dropout_mask(keep.shape, 0.3, 43)).mean() == pytest.approx(
        0.42, abs=0.01
    )


def test_dropout_keeps_the_mean_and_the_lse():
    q, k, v = problem(2, 4000, heads=(1, 1))
    out, lse = attnext.attention(q, k, v, return_lse=True)
    dropped, lse_dropped = attnext.attention(q, k, v, return_lse=True, dropout=0.5, seed=8)
    assert np.array_equal(lse, lse_dropped)
    assert 1e-4 < np.abs(dropped - out).max() < 0.5


def test_dropout_of_zero_and_one():
    q, k, v = problem()
    assert np.array_equal(attnext.attention(q, k, v, dropout=0.0), attnext.attention(q, k, v))
    out, vjp = attnext.attention_vjp(q, k, v, dropout=1.0, seed=1)
    assert (out == 0).all()
    assert all((g == 0).all() for g in vjp(np.ones_like(out))[:3])


# Beside attention


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
        attnext.attention(q, k[:, :, a:b], v[:, :, a:b], return_lse=True)
        for a, b in zip(cuts, cuts[1:], strict=False)
    ]
    out, lse = attnext.merge_attention(*zip(*parts, strict=True))
    truth, lse_truth = reference.attention(q, k, v, return_lse=True)
    bound = {np.float64: 1e-12, np.float32: 1e-5}.get(dtype, 3e-2)
    assert (out.dtype, lse.dtype) == (parts[0][0].dtype, parts[0][1].dtype)
    assert np.abs(out.astype(np.float64) - truth).max() < bound
    assert np.abs(lse - lse_truth).max() < max(1e-12, bound / 100)


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


JOINT = {
    "plain": {},
    "gqa_rich": {"softcap": 2.0, "bias": normal(4, 9, 13), "mask": np.arange(13) > 1, "sinks": normal(4), "alibi_slopes": np.full(4, 0.1)},
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


def test_sinusoidal_positions():
    """Vaswani et al., 2017: sin and cos of position / 10000^(2i / dim), interleaved."""
    table = np.asarray(attnext.sinusoidal_positions(50, 12))
    assert table.shape == (50, 12)
    position, i = np.arange(50)[:, None], np.arange(6)
    angle = position / 10000.0 ** (2 * i / 12)
    assert np.allclose(table[:, 0::2], np.sin(angle), atol=1e-6)
    assert np.allclose(table[:, 1::2], np.cos(angle), atol=1e-6)


def test_rotary_is_a_rotation_that_knows_the_distance_only():
    x = normal(1, 2, 10, 8)
    turned = attnext.rotary(x, np.arange(10))
    assert np.allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(x, axis=-1))
    assert np.allclose(turned[:, :, 0], x[:, :, 0])
    same = np.broadcast_to(x[:, :, :1], x.shape)
    one, later = attnext.rotary(same, np.arange(10)), attnext.rotary(same, np.arange(10) + 5)
    products = [np.einsum("bhid,bhjd->bhij", y, y) for y in (one, later)]
    assert np.allclose(products[0], products[1])
    assert np.ptp(products[0]) > 0.1


def test_rotary_backward_is_its_transpose():
    x, dy = normal(1, 2, 10, 8), normal(1, 2, 10, 8, seed=1)
    positions = np.arange(10) * 3
    assert (attnext.rotary(x, positions) * dy).sum() == pytest.approx(
        (x * attnext.rotary_backward(dy, positions)).sum()
    )


@pytest.mark.parametrize("num_heads", [1, 2, 8, 16])
def test_alibi_slopes_of_a_power_of_two(num_heads):
    """Press et al., 2022: the geometric sequence that starts at, and has the ratio, 2^(-8 / heads)."""
    expected = 2.0 ** (-8 / num_heads * np.arange(1, num_heads + 1))
    assert np.allclose(attnext.alibi_slopes(num_heads), expected)


def test_alibi_slopes_of_other_counts():
    """The closest power of two below, then every other one of twice as many heads."""
    expected = [*(2.0 ** -np.arange(1, 9)), *(2.0 ** (-0.5 * np.array([1, 3, 5, 7])))]
    assert np.allclose(attnext.alibi_slopes(12), expected)


def test_alibi_is_the_bias_it_says():
    q, k, v = problem(9, 13)
    slopes = np.asarray(attnext.alibi_slopes(4), np.float64)
    distance = np.abs(np.arange(9)[:, None] + 4 - np.arange(13))
    found = attnext.attention(q, k, v, alibi_slopes=slopes)
    assert np.allclose(
        found,
        attnext.attention(q, k, v, bias=-slopes[:, None, None] * distance),
        rtol=0,
        atol=1e-13,
    )


def test_explain_names_kernel_and_reason():
    q, k, v = problem(dtype=np.float32)
    told = attnext.explain(q, k, v, causal=True)
    assert told["backend"] == "cpu"
    assert told["isa"] == attnext._core.isa()
    assert told["why"]
    assert told != attnext.explain(q, k, v, score="neg_l2")
