"""Does dropout drop what it says it drops, bit for bit, and nothing else?"""

import numpy as np
import pytest

import attnext
from attnext import reference
from draws import FLOATS, problem


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
