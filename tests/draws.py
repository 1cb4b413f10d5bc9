"""What do tests that need no named case draw? Plain normal arrays."""

import ml_dtypes
import numpy as np

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def problem(seqlen_q=9, seqlen_k=70, dtype=np.float64, heads=(4, 2), dim=16):
    return [
        normal(2, heads[0], seqlen_q, dim, seed=1, dtype=dtype),
        normal(2, heads[1], seqlen_k, dim, seed=2, dtype=dtype),
        normal(2, heads[1], seqlen_k, dim, seed=3, dtype=dtype),
    ]
