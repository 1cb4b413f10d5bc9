"""Scores that make an online softmax change its mind, from tile to tile."""

import numpy as np

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
