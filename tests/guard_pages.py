"""Does a pass touch a byte that is not its own? A program that dies at the first, case named.

Every buffer ends at, or begins after, a page that may be neither read nor written.
"""

import ctypes
import itertools
import mmap
import sys

import numpy as np

from c_interface import Gradients, Options, call, load
from inputs import DTYPES

_LIBC = ctypes.CDLL(None, use_errno=True)
_KEPT = []


def guarded(shape, dtype, side, spacing=1):
    """Zeros that touch a forbidden page on one side; ``spacing`` between last-axis elements."""
    size = int(np.prod(shape))
    num_bytes = ((size - 1) * spacing + 1) * dtype.itemsize if size else 0
    pages = -(-num_bytes // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages + 1):
        done = _LIBC.mprotect(ctypes.c_void_p(start + page * mmap.PAGESIZE), mmap.PAGESIZE, 0)
        assert done == 0, ctypes.get_errno()
    _KEPT.append(memory)
    gap = pages * mmap.PAGESIZE - num_bytes if side == "after" else 0
    storage = np.frombuffer(memory, np.uint8, num_bytes, mmap.PAGESIZE + gap).view(dtype)
    strides = np.array(np.empty(shape, dtype).strides) * spacing
    return np.lib.stride_tricks.as_strided(storage, shape, strides, writeable=True)


def random(rng, shape, dtype, side, spacing=1):
    x = guarded(shape, dtype, side, spacing)
    x[...] = rng.normal(size=shape).astype(dtype)
    return x


def run(library, rng, dtype, side, seqlens, dims, spacing, options):
    (seqlen_q, seqlen_k), (dim, dim_v), (heads_q, heads_k) = seqlens, dims, (2, 1)
    statistic = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    q = random(rng, (1, heads_q, seqlen_q, dim), dtype, side, spacing)
    k = random(rng, (1, heads_k, seqlen_k, dim), dtype, side, spacing)
    v = random(rng, (1, heads_k, seqlen_k, dim_v), dtype, side, spacing)
    dout = random(rng, (1, heads_q, seqlen_q, dim_v), dtype, side, spacing)
    dlse = random(rng, (1, heads_q, seqlen_q), statistic, side)
    full = {"bias": random(rng, (1, heads_q, seqlen_q, seqlen_k), dtype, side)}
    mask = guarded((1, heads_q, seqlen_q, seqlen_k), np.dtype(bool), side)
    mask[...] = rng.random(mask.shape) < 0.8
    full |= {"mask": mask, "sinks": random(rng, (heads_q,), statistic, side)}
    made = Options(**{name: full.get(name, value) for name, value in options.items()})
    out = guarded(dout.shape, dtype, side)
    lse = guarded(dlse.shape, statistic, side)
    call(library, "forward", q, k, v, made, out, lse)
    grads = {
        "dq": guarded(q.shape, dtype, side),
        "dk": guarded(k.shape, dtype, side),
        "dv": guarded(v.shape, dtype, side),
    }
    if "bias" in options:
        grads["dbias"] = guarded(full["bias"].shape, dtype, side)
    call(library, "backward", dout, q, k, v, out, lse, dlse, made, Gradients(**grads))
    p = guarded((1, heads_q, seqlen_q, seqlen_k), statistic, side)
    call(library, "weights", q, k, made, None, p)
    key_mass = guarded((1, heads_q, seqlen_k), statistic, side)
    call(library, "stats", q, k, made, lse, guarded(lse.shape, statistic, side), None, key_mass)


def main(dtype_name):
    library, dtype, rng = load(), DTYPES[dtype_name], np.random.default_rng(0)
    option_sets = [
        {},
        {"causal": 1},
        {"bias": None, "mask": None, "sinks": None},
        {"score": 2},
        {"dropout": 0.5},
    ]
    seqlens = [(1, 1), (1, 67), (3, 5), (17, 33), (16, 16), (49, 63), (65, 48), (2, 1025)]
    dims = [(1, 1), (7, 3), (16, 16), (33, 65), (64, 64)]
    for side, (n, s), d in itertools.product(("after", "before"), enumerate(seqlens), dims):
        for spacing in (1, 3) if d == (7, 3) else (1,):
            options = option_sets[(n + d[0]) % len(option_sets)]
            print(side, s, d, spacing, options, flush=True)
            run(library, rng, dtype, side, s, d, spacing, options)
    print("untouched")


if __name__ == "__main__":
    main(sys.argv[1])
