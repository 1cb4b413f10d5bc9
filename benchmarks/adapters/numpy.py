"""What does plain NumPy take? The formula as one writes it, with the whole score matrix."""

import numpy as np
from threadpoolctl import threadpool_limits

GIB = 1024**3


def version():
    """The library's version."""
    return np.__version__


def why_not(case):
    """It computes dot products with masks and biases, where the scores fit the memory."""
    if case.score != "dot" or case.softcap or case.sinks or case.dropout or case.lengths:
        return "written for dot products with masks and biases"
    if case.dtype in ("float16", "bfloat16"):
        return "no matrix product in 16 bits"
    return too_large(case, GIB)


def too_large(case, most=2 * GIB):
    """Why a library that forms the scores of all pairs cannot run the case; None if it can."""
    size = 4 * case.batch * case.heads * case.seqlen * case.keys
    if size > most:
        return f"its scores would take {size / GIB:.0f} GiB"
    return None


def additive_mask(case, inputs):
    """All that is added to the scores, -inf where a pair does not attend; None if nothing is."""
    parts = []
    if case.causal or case.window:
        first, end = case.visible(case.seqlen, case.keys)
        key = np.arange(case.keys)
        shown = (key >= first[:, None]) & (key < end[:, None])
        parts.append(np.where(shown, 0, -np.inf).astype(np.float32))
    if case.mask:
        parts.append(np.where(inputs["mask"], 0, -np.inf).astype(np.float32))
    if "bias" in inputs:
        parts.append(inputs["bias"])
    if case.alibi:
        centre = np.arange(case.seqlen) + case.keys - case.seqlen
        distance = np.abs(centre[:, None] - np.arange(case.keys))
        parts.append(-inputs["alibi_slopes"][:, None, None] * distance.astype(np.float32))
    return sum(parts).astype(inputs["q"].dtype) if parts else None


def prepare(case, inputs, threads):
    """The call; only its matrix products, which are BLAS's, use more than one thread."""
    threadpool_limits(limits=threads, user_api="blas")
    q, v = inputs["q"], inputs["v"]
    group = case.heads // case.key_heads
    k, v = (np.repeat(inputs[name], group, axis=1) if group > 1 else inputs[name] for name in "kv")
    scale, added = q.dtype.type(case.scale), additive_mask(case, inputs)
    if not case.backward:
        return lambda: _weights(q, k, scale, added) @ v
    dout = inputs["dout"]
    p = _weights(q, k, scale, added)
    out = p @ v
    return lambda: _backward(dout, q, k, v, out, p, scale, case.key_heads)


def _weights(q, k, scale, added):
    s = q @ np.swapaxes(k, -1, -2)
    s *= scale
    if added is not None:
        s += added
    s -= s.max(axis=-1, keepdims=True)
    p = np.exp(s, out=s)
    p /= p.sum(axis=-1, keepdims=True)
    return p


def _backward(dout, q, k, v, out, p, scale, key_heads):
    dv = np.swapaxes(p, -1, -2) @ dout
    ds = dout @ np.swapaxes(v, -1, -2)
    ds -= np.sum(dout * out, axis=-1, keepdims=True)
    ds *= p
    ds *= scale
    dk = np.swapaxes(ds, -1, -2) @ q
    return ds @ k, *(_sum_groups(gradient, key_heads) for gradient in (dk, dv))


def _sum_groups(gradient, key_heads):
    batch, heads, *rest = gradient.shape
    if heads == key_heads:
        return gradient
    return gradient.reshape(batch, key_heads, heads // key_heads, *rest).sum(axis=2)


def read(case, result):
    """The arrays of the result."""
    return dict(zip(("dq", "dk", "dv"), result, strict=True)) if case.backward else {"out": result}
