"""Does every query see exactly the keys it may? All small masks and rules, one by one."""

import itertools

import numpy as np
import pytest

import attnext


def visible_by_rule(seqlen_q, seqlen_k, causal, window, q_offset):
    """The rule said once more, for one pair at a time."""
    left, right = window or (-1, -1)
    if q_offset is None:
        q_offset = 0 if causal == "top_left" else seqlen_k - seqlen_q

    def may_attend(i, j):
        position = i + q_offset
        if causal and j > position:
            return False
        if left >= 0 and j < position - left:
            return False
        return right < 0 or causal or j <= position + right

    pairs = [[may_attend(i, j) for j in range(seqlen_k)] for i in range(seqlen_q)]
    return np.array(pairs, bool).reshape(seqlen_q, seqlen_k)


def seen(seqlen_q, seqlen_k, **options):
    """Which keys each query attends, read off values that are the keys' own unit vectors."""
    q, k = np.zeros((seqlen_q, 1), np.float32), np.zeros((seqlen_k, 1), np.float32)
    out, lse = attnext.attention(
        q, k, np.eye(seqlen_k, dtype=np.float32), return_lse=True, **options
    )
    counts = np.round(np.exp(lse)).astype(int)
    assert np.array_equal((out > 0).sum(-1), counts), "lse counts the visible keys"
    return out > 0


@pytest.mark.parametrize("causal", [False, "bottom_right", "top_left"])
@pytest.mark.parametrize("q_offset", [None, -9, -3, -1, 0, 1, 4, 9])
def test_rules(causal, q_offset):
    windows = [None, (0, 0), (-1, 0), (0, -1), (1, 2), (2, 0), (0, 3), (3, -1), (-1, 1), (9, 9)]
    for seqlen_q, seqlen_k, window in itertools.product(range(1, 9), range(1, 9), windows):
        options = {"causal": causal, "window": window, "q_offset": q_offset}
        expected = visible_by_rule(seqlen_q, seqlen_k, **options)
        assert np.array_equal(seen(seqlen_q, seqlen_k, **options), expected), (
            seqlen_q,
            seqlen_k,
            window,
        )


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 3), (3, 3), (2, 5)])
def test_every_mask(shape):
    for bits in itertools.product([False, True], repeat=shape[0] * shape[1]):
        mask = np.array(bits).reshape(shape)
        assert np.array_equal(seen(*shape, mask=mask), mask)


@pytest.mark.parametrize("shape", [(1, 4), (2, 3), (3, 3)])
def test_every_bias_with_holes(shape):
    for bits in itertools.product([False, True], repeat=shape[0] * shape[1]):
        mask = np.array(bits).reshape(shape)
        bias = np.where(mask, 0, -np.inf).astype(np.float32)
        assert np.array_equal(seen(*shape, bias=bias), mask)


@pytest.mark.parametrize(("seqlen_q", "seqlen_k"), [(130, 200), (200, 130), (65, 257), (256, 256)])
def test_rules_across_tiles(seqlen_q, seqlen_k):
    edges = [None, (0, 0), (15, 16), (16, 15), (63, 0), (64, 64), (-1, 31), (100, -1)]
    for causal, window, q_offset in itertools.product([False, True], edges, [None, -40, 0, 17, 64]):
        options = {"causal": causal, "window": window, "q_offset": q_offset}
        expected = visible_by_rule(seqlen_q, seqlen_k, **options)
        assert np.array_equal(seen(seqlen_q, seqlen_k, **options), expected), options


def test_masks_intersect():
    rng = np.random.default_rng(0)
    for _ in range(50):
        seqlen_q, seqlen_k = rng.integers(1, 80, 2)
        rule = {
            "causal": bool(rng.integers(2)),
            "window": tuple(rng.integers(-1, 40, 2).tolist()),
            "q_offset": None,
        }
        mask = rng.random((seqlen_q, seqlen_k)) < 0.5
        bias = np.where(rng.random((1, seqlen_k)) < 0.5, 0, -np.inf).astype(np.float32)
        expected = visible_by_rule(seqlen_q, seqlen_k, **rule) & mask & (bias == 0)
        assert np.array_equal(seen(seqlen_q, seqlen_k, mask=mask, bias=bias, **rule), expected), (
            rule
        )


def test_gradient_sees_the_same_keys():
    """dv of a key is not 0 exactly where some query sees it."""
    options = {"causal": True, "window": (3, 0)}
    for seqlen_q, seqlen_k, q_offset in itertools.product(range(1, 9), range(1, 9), [None, -2, 3]):
        expected = visible_by_rule(seqlen_q, seqlen_k, q_offset=q_offset, **options).any(0)
        q, k, v = np.ones((seqlen_q, 1)), np.ones((seqlen_k, 1)), np.ones((seqlen_k, 1))
        out, vjp = attnext.attention_vjp(q, k, v, q_offset=q_offset, **options)
        assert np.array_equal(vjp(np.ones_like(out)).dv[:, 0] > 0, expected), (
            seqlen_q,
            seqlen_k,
            q_offset,
        )
