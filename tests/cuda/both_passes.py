"""Forward and backward of one problem, and whether both are right."""

import numpy as np

from attnext import reference
from tolerance import check


def passes(library, x, **where):
    """What forward and backward yield, by name."""
    out, lse = library.attention(x.q, x.k, x.v, return_lse=True, **where, **x.options)
    grads = library.attention_backward(
        x.dout, x.q, x.k, x.v, out, lse, dlse=x.dlse, **where, **x.options
    )
    return {"out": out, "lse": lse, "dq": grads.dq, "dk": grads.dk, "dv": grads.dv}


def check_all(actual, x):
    truth, naive = (passes(reference, x, dtype=dtype) for dtype in (np.float64, np.float32))
    for name, result in actual.items():
        check(name, result, truth[name], naive[name], x, lse=truth["lse"])
