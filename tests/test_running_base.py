"""Does the online softmax stay exact however a row's scores move from tile to tile?"""

import ml_dtypes
import numpy as np
import pytest

import attnext
from attnext import reference

SEQLEN_Q, SEQLEN_K, DIM = 60, 900, 8

# What the scores of successive keys are, before noise of size 1. A tile has 128 keys.
_KEYS = np.arange(SEQLEN_K)
COURSES = {
    "grows_slowly": 0.2 * _KEYS,
    "grows_in_every_tile": 60.0 * (_KEYS // 128),
    "grows_beyond_every_base": 200.0 * (_KEYS // 64),
    "falls": -3.0 * _KEYS,
    "late_spike": np.where(_KEYS == SEQLEN_K - 2, 300.0, 0.0),
    "early_spike": np.where(_KEYS == 1, 300.0, 0.0),
    "all_far_below": np.full(SEQLEN_K, -500.0),
    "all_far_above": np.full(SEQLEN_K, 500.0),
    "far_below_then_near": np.where(_KEYS < 400, -5000.0, 0.0),
    "to_and_fro": 100.0 * np.sin(_KEYS / 50),
}


def inputs(course, dtype, neighbours):
    """q, k, v whose scores follow a course; of rows that are neighbours, another one."""
    rng = np.random.default_rng(3)
    q, k, v = (rng.normal(size=(n, DIM)) for n in (SEQLEN_Q, SEQLEN_K, SEQLEN_K))
    q[:, -1], k[:, -1] = 1, course
    if neighbours:
        q[1::2, -1] = 0
    return [x.astype(dtype) for x in (q, k, v)]


def relative_error(x, truth):
    return np.abs(x.astype(np.float64) - truth).max() / np.abs(truth).max()


@pytest.mark.parametrize("neighbours", [False, True], ids=["alike", "mixed"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("causal", [False, True])
def test_course(course, dtype, neighbours, causal):
    q, k, v = inputs(COURSES[course], dtype, neighbours)
    options = {"scale": 1.0, "causal": causal}
    out, lse = attnext.attention(q, k, v, return_lse=True, **options)
    true_out, true_lse = reference.attention(q, k, v, return_lse=True, **options)
    # A score of 1000 has a float32 rounding of 6e-5, which is that of its weight.
    exact = {8: 1e-12, 4: 2e-3, 2: 2e-2}[np.dtype(dtype).itemsize]
    assert relative_error(out, true_out) < exact
    assert relative_error(lse, true_lse) < {8: 1e-14}.get(np.dtype(dtype).itemsize, 1e-6)
    dout = np.ones_like(out)
    grads = attnext.attention_backward(dout, q, k, v, out, lse, **options)
    truth = reference.attention_backward(dout, q, k, v, true_out, true_lse, **options)
    assert relative_error(grads.dv, truth.dv) < exact


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_bits_of_a_row_are_its_own(course, dtype):
    """Whatever its neighbours do to the tile they share."""
    q, k, v = inputs(COURSES[course], dtype, neighbours=True)
    together = attnext.attention(q, k, v, scale=1.0)
    calm = q.copy()
    calm[::2] = 0
    assert np.array_equal(attnext.attention(calm, k, v, scale=1.0)[1::2], together[1::2])


@pytest.mark.parametrize("seqlen_q", [1, 5, 60])
def test_all_scores_minus_infinity_or_nan(seqlen_q):
    q, k, v = (x.astype(np.float32) for x in inputs(COURSES["falls"], np.float64, False))
    q = q[:seqlen_q]
    k[:, -1] = -np.inf
    assert np.isnan(attnext.attention(q, k, v)).all()
    k[:, -1] = 0
    k[700] = np.nan
    assert np.isnan(attnext.attention(q, k, v)).all()
