"""What is attention, and what are its gradients? The formulas, one sequence at a time."""

from typing import Any, NamedTuple

import numpy as np

from .dropout import keep_pairs
from .problem import Problem


class AttentionGrads(NamedTuple):
    """Gradients, each in the shape of what it belongs to; None where that was absent."""

    dq: Any
    dk: Any
    dv: Any
    dbias: Any = None
    dalibi_slopes: Any = None
    dsinks: Any = None
    dscale: Any = None
    dweight: Any = None
    dscore_bias: Any = None


class AttentionStats(NamedTuple):
    """Per query lse, row_max and entropy (nats); per key its mass, the weight it received."""

    lse: Any
    row_max: Any
    entropy: Any
    key_mass: Any


@np.errstate(all="ignore")
def attention(q, k, v, *, return_lse=False, dtype=None, **options):
    """Compute out = softmax(s) v over the visible keys; lse = log(sum(exp(s))).

    Returns
    -------
    out : ndarray
        Like q, with the last axis of v.
    lse : ndarray, if ``return_lse``
        (B, Hq, Sq), natural logarithm, -inf where a query sees no key.
    """
    problem = Problem(q, k, dtype, options)
    values = problem.canonical_keys(v)
    out = np.zeros((*problem.q.shape[:3], values.shape[3]), problem.number.work)
    lse = np.full(problem.q.shape[:3], -np.inf, problem.number.work)
    for x in problem.sequences():
        s = final_scores(problem, x)
        keep = kept(problem, x.index, x.visible.shape[1:])
        v_x = np.repeat(values[x.place_k], problem.group_size, axis=0)
        out[x.place_q], lse[x.place_q] = attend(problem, s, x.visible, v_x, keep)
    out = problem.original(out.astype(problem.number.dtype))
    return (out, problem.original_rows(lse)) if return_lse else out


def final_scores(problem, x):
    """Compute s = cap tanh(scale f(q, k) / cap) + bias - slope |distance|; the mask comes after."""
    s = problem.scale[:, None, None] * problem.score.value(x.q, x.k)
    if problem.options.softcap:
        cap = problem.number.work.type(problem.options.softcap)
        s = cap * np.tanh(s / cap)
    s = s + x.bias
    if problem.slopes is not None:
        s = s - problem.slopes[x.index][:, None, None] * np.abs(x.distance).astype(s.dtype)
    return s


def softmax(problem, s, visible):
    """Compute p and lse of each row; p is 0 at invisible keys, a sink's share goes to no key."""
    s = np.where(visible, s, -np.inf)
    peak = s.max(-1, initial=-np.inf)
    if problem.sinks is not None:
        peak = np.maximum(peak, problem.sinks[:, None])
    peak = np.where(~visible.any(-1) & (peak == -np.inf), 0, peak)
    e = np.exp(s - peak[..., None])
    total = e.sum(-1)
    if problem.sinks is not None:
        total = total + np.exp(problem.sinks[:, None] - peak)
    return np.where(visible, e / total[..., None], 0), peak + np.log(total)


def attend(problem, s, visible, v, keep):
    """Weigh v (H, columns, Dv) by one softmax over the rows of s (H, rows, columns)."""
    p, lse = softmax(problem, s, visible)
    out = problem.number.rounded(p * keep) @ v
    return np.where(visible.any(-1)[..., None], out, 0), lse


def kept(problem, index, shape, stream=0):
    """Dropout as a factor: 1 / (1 - dropout) for a pair that is kept, 0 for one that is not."""
    dropout = problem.options.dropout
    if not dropout:
        return problem.number.work.type(1)
    heads = index * problem.num_heads_q + np.arange(problem.num_heads_q)
    keep = keep_pairs(heads, *shape, dropout, problem.options.seed, stream)
    return keep * problem.number.work.type(0 if dropout == 1 else 1 / (1 - dropout))


@np.errstate(all="ignore")
def attention_backward(
    dout, q, k, v, out, lse, *, dlse=None, deterministic=True, dtype=None, **options
):
    """Give the gradients of ``sum(dout * out) + sum(dlse * lse)``, of `attention`'s results.

    In float64 the rounding of out and lse is undone in the rows whose weights sum to 1. Elsewhere
    they are results over more keys than these, and are taken as they are.
    """
    problem = Problem(q, k, dtype, options)
    if problem.is_paged:
        raise NotImplementedError("attention_backward: block_table is for the forward pass only")
    grads = Gradients(problem)
    values, dout, out = (problem.canonical(x) for x in (v, dout, out))
    lse, dlse, slack = canonical_results(problem, lse, dlse)
    dv = np.zeros_like(values)
    for x in problem.sequences():
        v_x = np.repeat(values[x.place_k], problem.group_size, axis=0)
        rows = tuple(y[x.place_q] for y in (dout, out, lse, dlse, slack))
        keep = kept(problem, x.index, x.visible.shape[1:])
        ds, dv_x = attend_backward(
            problem, final_scores(problem, x), x.visible, v_x, keep, *rows, grads
        )
        dv[x.place_k] += sum_groups(problem, dv_x)
        grads.add(x, ds)
    return AttentionGrads(grads.dq, grads.dk, grads.finished(dv), *grads.of_options())


def attend_backward(problem, s, visible, v, keep, dout, out, lse, dlse, slack, grads):
    """Give the gradients of the scores and of v of `attend`; the sink's is added to ``grads``."""
    p = np.where(visible, np.exp(s - lse[..., None]), 0)
    share = np.zeros_like(lse)
    if problem.sinks is not None:
        share = np.where(lse == -np.inf, 0, np.exp(problem.sinks[:, None] - lse))
    mass = p.sum(-1) + share
    is_whole = np.isfinite(lse) & (np.abs(mass - 1) <= slack)
    p, share = (
        np.where(is_whole[..., None], p / mass[..., None], p),
        np.where(is_whole, share / mass, share),
    )
    dp = keep * (dout @ np.swapaxes(v, -1, -2))
    exact = np.where(visible, p * dp, 0).sum(-1)
    delta = np.where(is_whole, exact, (dout * out).sum(-1)) - dlse
    ds = np.where(visible, p * (dp - delta[..., None]), 0)
    if problem.sinks is not None:
        grads.dsinks += np.where(share == 0, 0, share * -delta).sum(-1)
    return ds, np.swapaxes(problem.number.rounded(p * keep), -1, -2) @ dout


class Gradients:
    """Collects, sequence by sequence, what ds means for everything the scores were made of."""

    def __init__(self, problem):
        heads, o = problem.num_heads_q, problem.options
        zeros = lambda *shape: np.zeros(shape, problem.number.work)  # noqa: E731
        self.problem = problem
        self._dq, self._dk = zeros(*problem.q.shape), zeros(*problem.k.shape)
        self.dbias = None if o.bias is None else zeros(*_at_least(problem.score_shape, o.bias))
        self.dslopes = zeros(problem.num_sequences, heads)
        self.dsinks, self.dscale = zeros(heads), zeros(heads)
        self.dweight, self.dscore_bias = (
            zeros(heads, problem.head_dim),
            zeros(heads, problem.head_dim),
        )

    def add(self, x, ds):
        """Walk back through `final_scores`."""
        problem = self.problem
        _, len_q, len_k = ds.shape
        if self.dbias is not None:
            self.dbias[x.index, :, :len_q, :len_k] += ds
        self.dslopes[x.index] -= (ds * np.abs(x.distance).astype(ds.dtype)).sum((-1, -2))
        f = problem.score.value(x.q, x.k)
        scale = problem.scale[:, None, None]
        if problem.options.softcap:
            ds = np.where(
                ds == 0,
                0,
                ds * (1 - np.tanh(scale * f / ds.dtype.type(problem.options.softcap)) ** 2),
            )
        self.dscale += np.where(ds == 0, 0, ds * f).sum((-1, -2))
        dq, dk, *dlearned = problem.score.gradient(problem.number.rounded(scale * ds), x.q, x.k)
        self._dq[x.place_q] += dq
        self._dk[x.place_k] += sum_groups(problem, dk)
        for total, part in zip((self.dweight, self.dscore_bias), dlearned, strict=bool(dlearned)):
            total += part

    def finished(self, gradient):
        """Round once, into the caller's layout."""
        return self.problem.original(gradient.astype(self.problem.number.dtype))

    @property
    def dq(self):
        """The gradient of q, for the caller."""
        return self.finished(self._dq)

    @property
    def dk(self):
        """The gradient of k, for the caller."""
        return self.finished(self._dk)

    def of_options(self):
        """Give dbias and those after it, summed over the axes that were broadcast."""
        o = self.problem.options
        learned = (None, None) if isinstance(o.score, str) else (o.score.weight, o.score.bias)
        scale = o.scale if np.ndim(o.scale) else None
        owners = (o.bias, o.alibi_slopes, o.sinks, scale, *learned)
        totals = (
            self.dbias,
            self.dslopes,
            self.dsinks,
            self.dscale,
            self.dweight,
            self.dscore_bias,
        )
        return tuple(
            None if x is None else sum_to(total, np.shape(x))
            for x, total in zip(owners, totals, strict=True)
        )


def _at_least(shape, x):
    """Take the larger of each axis of ``shape`` and of x, aligned at the right."""
    own = (1,) * (len(shape) - np.ndim(x)) + np.shape(x)
    return tuple(max(sizes) for sizes in zip(shape, own, strict=True))


def sum_to(x, shape):
    """Sum x, the gradient of an array that was broadcast, to that array's ``shape``."""
    x = x.sum(tuple(range(x.ndim - len(shape))))
    return x.sum(
        tuple(axis for axis, size in enumerate(shape) if size == 1), keepdims=True
    ).reshape(shape)


def sum_groups(problem, x):
    """Turn one gradient per query head into one per key head."""
    return x.reshape(problem.k.shape[1], problem.group_size, *x.shape[1:]).sum(1)


def canonical_rows(problem, x, shape=None):
    """Bring lse or dlse to (B, Hq, Sq); zeros if absent."""
    shape = problem.q.shape[:3] if shape is None else shape
    return (
        np.zeros(shape, problem.number.work) if x is None else problem.number.wide(x).reshape(shape)
    )


def canonical_results(problem, lse, dlse, shape=None):
    """Bring lse and dlse to (B, Hq, Sq), and say how far from 1 lse lets the weights of a row sum.

    That is what its rounding, and that of the scores within it, explain; a naive formula in few
    digits has no such rows, as it makes do with the out that it is given.
    """
    rounding = np.finfo(np.asarray(lse).dtype).eps
    lse, dlse = (canonical_rows(problem, x, shape) for x in (lse, dlse))
    factor = 64 * rounding if problem.number.is_exact else -np.inf
    return lse, dlse, factor * (1 + np.abs(lse))


def attention_vjp(q, k, v, *, dtype=None, **options):
    """Give out, and the function from (dout, dlse) to the gradients."""
    out, lse = attention(q, k, v, return_lse=True, dtype=dtype, **options)

    def vjp(dout, dlse=None):
        return attention_backward(dout, q, k, v, out, lse, dlse=dlse, dtype=dtype, **options)

    return out, vjp


@np.errstate(all="ignore")
def attention_weights(q, k, *, rows=None, dtype=None, **options):
    """Give the weights p (B, Hq, rows, Sk), without dropout; packed: (Hq, rows, longest Sk)."""
    problem = Problem(q, k, dtype, options)
    p = np.zeros((*problem.q.shape[:3], problem.score_shape[3]), problem.number.work)
    for x in problem.sequences():
        weights, _ = softmax(problem, final_scores(problem, x), x.visible)
        p[(*x.place_q, slice(weights.shape[2]))] = weights
    p = p if rows is None else p[:, :, np.asarray(rows, int)]
    return problem.original_rows(p).astype(problem.number.dtype)


@np.errstate(all="ignore")
def attention_stats(q, k, *, dtype=None, **options):
    """Say what the weights look like, without the weights."""
    problem = Problem(q, k, dtype, options)
    lse, row_max = (np.full(problem.q.shape[:3], -np.inf, problem.number.work) for _ in range(2))
    entropy = np.zeros(problem.q.shape[:3], problem.number.work)
    key_mass = np.zeros(
        (problem.q.shape[0], problem.num_heads_q, problem.k.shape[2]), problem.number.work
    )
    for x in problem.sequences():
        s = final_scores(problem, x)
        p, lse[x.place_q] = softmax(problem, s, x.visible)
        row_max[x.place_q] = np.where(x.visible, s, -np.inf).max(-1, initial=-np.inf)
        entropy[x.place_q] = np.where(p == 0, 0, p * (lse[x.place_q][..., None] - s)).sum(-1)
        key_mass[x.place_k] = p.sum(-2)
    return AttentionStats(*(problem.original_rows(y) for y in (lse, row_max, entropy, key_mass)))
