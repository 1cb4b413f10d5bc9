"""What is built of attention? Both directions of one score matrix, results joined, pooling."""

from typing import Any, NamedTuple

import numpy as np

from .passes import (
    Gradients,
    attend,
    attend_backward,
    canonical_results,
    final_scores,
    kept,
    sum_groups,
)
from .problem import Arithmetic, Problem

ROWS, COLUMNS = 0, 1  # the dropout streams


class BidirectionalGrads(NamedTuple):
    """Gradients, each in the shape of what it belongs to; None where that was absent."""

    dq: Any
    dk: Any
    dv_q: Any
    dv_k: Any
    dbias: Any = None
    dalibi_slopes: Any = None
    dsinks: Any = None
    dscale: Any = None
    dweight: Any = None
    dscore_bias: Any = None


@np.errstate(all="ignore")
def bidirectional_attention(q, k, v_q, v_k, *, return_lse=False, dtype=None, **options):
    """Attend in both directions, queries to keys and keys to queries, by one score matrix s.

    Returns
    -------
    out_q : ndarray
        (B, Hq, Sq, Dv), softmax over the keys, of v_k.
    out_k : ndarray
        (B, Hq, Sk, Dv), softmax over the queries, of v_q; one for each query head.
    lse_q, lse_k : ndarray, if ``return_lse``
    """
    problem = _joint_problem(q, k, dtype, options)
    v_q, v_k = problem.canonical(v_q), problem.canonical(v_k)
    shape_q, shape_k = _row_shapes(problem)
    out_q = np.zeros((*shape_q, v_k.shape[3]), problem.number.work)
    out_k = np.zeros((*shape_k, v_q.shape[3]), problem.number.work)
    lse_q, lse_k = (np.full(shape, -np.inf, problem.number.work) for shape in (shape_q, shape_k))
    for x in problem.sequences():
        for direction in _directions(problem, x, v_q, v_k):
            out, lse = (out_q, lse_q) if direction.stream == ROWS else (out_k, lse_k)
            out[direction.place], lse[direction.place] = attend(problem, *direction.operands)
    outs = tuple(problem.original(y.astype(problem.number.dtype)) for y in (out_q, out_k))
    return (
        (*outs, problem.original_rows(lse_q), problem.original_rows(lse_k)) if return_lse else outs
    )


@np.errstate(all="ignore")
def bidirectional_attention_backward(
    dout_q, dout_k, q, k, v_q, v_k, out_q, out_k, lse_q, lse_k, *,
    dlse_q=None, dlse_k=None, deterministic=True, dtype=None, **options
):  # fmt: skip
    """Give the gradients of both results: those of the scores add up, ds = ds_rows + ds_columns."""
    problem = _joint_problem(q, k, dtype, options)
    shape_q, shape_k = _row_shapes(problem)
    grads = Gradients(problem)
    v_q, v_k = problem.canonical(v_q), problem.canonical(v_k)
    results = {
        ROWS: (*(problem.canonical(y) for y in (dout_q, out_q)),
               *canonical_results(problem, lse_q, dlse_q, shape_q)),
        COLUMNS: (*(problem.canonical(y) for y in (dout_k, out_k)),
                  *canonical_results(problem, lse_k, dlse_k, shape_k)),
    }  # fmt: skip
    dv_q, dv_k = np.zeros_like(v_q), np.zeros_like(v_k)
    for x in problem.sequences():
        rows, columns = _directions(problem, x, v_q, v_k)
        operands = tuple(y[rows.place] for y in results[ROWS])
        ds, dv = attend_backward(problem, *rows.operands, *operands, grads)
        dv_k[x.place_k] += sum_groups(problem, dv)
        operands = tuple(y[columns.place] for y in results[COLUMNS])
        ds_columns, dv_q[x.place_q] = attend_backward(problem, *columns.operands, *operands, grads)
        grads.add(x, ds + np.swapaxes(ds_columns, -1, -2))
    return BidirectionalGrads(
        grads.dq, grads.dk, grads.finished(dv_q), grads.finished(dv_k), *grads.of_options()
    )


class _Direction(NamedTuple):
    stream: int
    place: tuple  # where its results are
    operands: tuple  # (s, visible, v, keep) of `attend`


def _directions(problem, x, v_q, v_k):
    s, (_, len_q, len_k) = final_scores(problem, x), x.visible.shape
    v_k = np.repeat(v_k[x.place_k], problem.group_size, axis=0)
    keep_rows = kept(problem, x.index, (len_q, len_k), ROWS)
    keep_columns = kept(problem, x.index, (len_k, len_q), COLUMNS)
    transposed = (np.swapaxes(y, -1, -2) for y in (s, x.visible))
    return (
        _Direction(ROWS, x.place_q, (s, x.visible, v_k, keep_rows)),
        _Direction(COLUMNS, x.place_k, (*transposed, v_q[x.place_q], keep_columns)),
    )


def _joint_problem(q, k, dtype, options):
    problem = Problem(q, k, dtype, options)
    if problem.is_paged:
        raise NotImplementedError("bidirectional_attention: block_table is for attention only")
    return problem


def _row_shapes(problem):
    batch, heads, rows_q, _ = problem.q.shape
    return (batch, heads, rows_q), (batch, heads, problem.k.shape[2])


@np.errstate(all="ignore")
def merge_attention(outs, lses, *, dtype=None):
    """Join results over disjoint sets of keys.

    ``lse = log(sum_i exp(lse_i))`` and ``out = sum_i out_i exp(lse_i - lse)``.
    """
    work = Arithmetic(dtype).work
    outs, lses = (np.stack([np.asarray(x).astype(work) for x in xs]) for xs in (outs, lses))
    peak = lses.max(0)
    peak = np.where(peak == -np.inf, 0, peak)
    lse = peak + np.log(np.exp(lses - peak).sum(0))
    weights = np.where(lses == -np.inf, 0, np.exp(lses - lse))
    out = np.where(weights[..., None] == 0, 0, weights[..., None] * outs).sum(0)
    return out.astype(Arithmetic(dtype).dtype), lse


@np.errstate(all="ignore")
def attention_pool(x, weight, *, values=None, lengths=None, dtype=None):
    """Weigh values (x by default) by the softmax, over the sequence, of weight . tanh(x_j).

    x is (B, S, D) or (S, D), weight (D,), values (B, S, Dv) or (S, Dv), the result (B, Dv) or
    (Dv,).
    """
    work = Arithmetic(dtype).work
    x, weight = np.asarray(x).astype(work), np.asarray(weight).astype(work)
    values = x if values is None else np.asarray(values).astype(work)
    exists = np.ones(x.shape[:-1], bool)
    if lengths is not None:
        exists = np.arange(x.shape[-2]) < np.asarray(lengths)[..., None]
    s = np.where(exists, (weight * np.tanh(x)).sum(-1), -np.inf)
    e = np.exp(s - s.max(-1, initial=-np.inf, keepdims=True))
    p = np.where(exists, e / e.sum(-1, keepdims=True), 0)
    pooled = (p[..., None] * np.where(exists[..., None], values, 0)).sum(-2)
    return pooled.astype(Arithmetic(dtype).dtype)
