"""How do queries and keys attend each other by one score matrix? By a call for each direction."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import _core
from .arguments import flag
from .errors import speaking_of
from .gradients import ALL
from .libraries import is_array, namespace, widened
from .options import DEFAULTS, Options, pack_options, take_options

__all__ = ["BidirectionalGrads", "bidirectional_attention", "bidirectional_attention_backward"]

# The two directions draw independent dropout masks from one seed.
ROWS, COLUMNS = 0, 1

# What a direction's call of attention names otherwise than the caller.
ROW_NAMES = {"v": "v_k", "out": "out_q", "lse": "lse_q", "dout": "dout_q", "dlse": "dlse_q"}
COLUMN_NAMES = {
    "q": "k", "k": "q", "v": "v_q", "out": "out_k", "lse": "lse_k", "dout": "dout_k",
    "dlse": "dlse_k", "seqlen_q": "seqlen_k", "seqlen_k": "seqlen_q",
    "num_heads_kv": "num_heads_q",
}  # fmt: skip


class BidirectionalGrads(NamedTuple):
    """Gradients, each in the type and shape of what it belongs to; None where that was absent."""

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


@take_options
def bidirectional_attention(
    q: Any, k: Any, v_q: Any, v_k: Any, *, return_lse: bool = False, **options: Any
) -> tuple[Any, ...]:
    """Queries attend keys and keys attend queries, by one score matrix s.

    Parameters
    ----------
    q, k : array
        (B, Hq, Sq, D) and (B, Hk, Sk, D), as in `attention`.
    v_q : array (B, Hq, Sq, Dv)
        What the keys gather from the queries.
    v_k : array (B, Hk, Sk, Dv)
        What the queries gather from the keys.
    return_lse : bool
        Also return the logarithm of each row's and each column's sum.
    **options
        See `attention`; they shape s, hence both directions, as do sinks and dropout (with
        independent masks). `block_table` is not supported.

    Returns
    -------
    out_q : array (B, Hq, Sq, Dv)
        ``softmax(s, over the keys) @ v_k``.
    out_k : array (B, Hq, Sk, Dv)
        ``softmax(s, over the queries).T @ v_q``, one for each query head.
    lse_q, lse_k : array (B, Hq, Sq), (B, Hq, Sk)
        Only with `return_lse`.

    Raises
    ------
    NotImplementedError
        With `block_table`.
    ValueError, TypeError, RuntimeError
        As in `attention`.

    Notes
    -----
    The co-attention of Lu et al. (2016).

    Examples
    --------
    >>> import numpy as np
    >>> import attnext
    >>> words, regions = np.split(np.random.default_rng(0).standard_normal((29, 64)), [20])
    >>> outs = attnext.bidirectional_attention(words, regions, words, regions)
    >>> outs[0].shape, outs[1].shape
    ((20, 64), (9, 64))
    """
    name = "bidirectional_attention"
    is_lse_wanted = flag(name, "return_lse", return_lse)
    rows, is_reference = _pack(name, options)
    _check_arrays(name, q, k, v_q, v_k)
    with speaking_of(name, ROW_NAMES):
        if is_reference:
            from .reference_backend import run_bidirectional

            return run_bidirectional((q, k, v_q, v_k), is_lse_wanted, rows)
        out_q, lse_q = _core.forward(q, k, v_k, rows, True, None, ROWS, False)
    with speaking_of(name, COLUMN_NAMES):
        out_k, lse_k = _core.forward(
            _repeat_heads(k, q, rows), q, v_q, _transpose(rows), True, None, COLUMNS, False
        )
    return (out_q, out_k, lse_q, lse_k) if is_lse_wanted else (out_q, out_k)


@take_options
def bidirectional_attention_backward(
    dout_q: Any,
    dout_k: Any,
    q: Any,
    k: Any,
    v_q: Any,
    v_k: Any,
    out_q: Any,
    out_k: Any,
    lse_q: Any,
    lse_k: Any,
    *,
    dlse_q: Any = None,
    dlse_k: Any = None,
    deterministic: bool = True,
    **options: Any,
) -> BidirectionalGrads:
    """Gradients of `bidirectional_attention`: those of both directions, added.

    Parameters
    ----------
    dout_q, dout_k : array
        Gradients of out_q and out_k.
    q, k, v_q, v_k : array
        As in the forward call.
    out_q, out_k, lse_q, lse_k : array
        What it returned, with ``return_lse=True``.
    dlse_q, dlse_k : array, optional
        Gradients of lse_q and lse_k; None: zero.
    deterministic : bool
        Accepted; every pass is deterministic.
    **options
        As in the forward call.

    Returns
    -------
    BidirectionalGrads
        (dq, dk, dv_q, dv_k, dbias, dalibi_slopes, dsinks, dscale, dweight, dscore_bias).

    Raises
    ------
    ValueError, TypeError, NotImplementedError, RuntimeError
        As in `bidirectional_attention`.

    Examples
    --------
    >>> import numpy as np
    >>> import attnext
    >>> q, k, v_q, v_k = np.random.default_rng(0).standard_normal((4, 9, 16))
    >>> results = attnext.bidirectional_attention(q, k, v_q, v_k, return_lse=True)
    >>> douts = results[:2]
    >>> grads = attnext.bidirectional_attention_backward(*douts, q, k, v_q, v_k, *results)
    >>> grads.dv_q.shape
    (9, 16)
    """
    name = "bidirectional_attention_backward"
    rows, is_reference = _pack(name, options)
    _check_arrays(name, q, k, v_q, v_k)
    with speaking_of(name, ROW_NAMES):
        if is_reference:
            from .reference_backend import run_bidirectional_backward

            arrays = (dout_q, dout_k, q, k, v_q, v_k, out_q, out_k, lse_q, lse_k)
            return BidirectionalGrads(*run_bidirectional_backward(arrays, dlse_q, dlse_k, rows))
        dq, dk, dv_k, dbias, *others = _core.backward(
            dout_q, q, k, v_k, out_q, lse_q, dlse_q, rows, ROWS, ALL
        )
    with speaking_of(name, COLUMN_NAMES):
        dk_columns, dq_columns, dv_q, dbias_columns, *others_columns = _core.backward(
            dout_k, _repeat_heads(k, q, rows), q, v_q, out_k, lse_k, dlse_k, _transpose(rows),
            COLUMNS, ALL,
        )  # fmt: skip
    # In place where the library can: at most two gradients more than the result are ever there.
    dq += dq_columns
    del dq_columns
    dk += _sum_groups(dk_columns, k, rows)
    del dk_columns
    if dbias is not None:
        dbias += _swap_last_axes(dbias_columns).reshape(dbias.shape)
    return BidirectionalGrads(dq, dk, dv_q, dv_k, dbias, *map(_sum, others, others_columns))


def _sum(of_rows: Any, of_columns: Any) -> Any:
    if of_rows is None:
        return None
    of_rows += of_columns
    return of_rows


def _pack(function: str, options: dict[str, Any]) -> tuple[Options, bool]:
    if options.get("block_table") is not None:
        raise NotImplementedError(
            f"{function}: block_table is for the forward pass of attention only"
        )
    return pack_options(function, options)


def _check_arrays(function: str, q: Any, k: Any, v_q: Any, v_k: Any) -> None:
    """What both directions rely on, before either of them runs."""
    for name, array in (("q", q), ("k", k), ("v_q", v_q), ("v_k", v_k)):
        if not is_array(array) or not hasattr(array, "shape"):
            found = type(array).__name__
            raise TypeError(f"{function}: {name} must be an array with a shape, found {found}")
    for name, values, owner_name, owner in (("v_q", v_q, "q", q), ("v_k", v_k, "k", k)):
        if values.shape[:-1] != owner.shape[:-1]:
            raise ValueError(
                f"{function}: {name} must have the axes of {owner_name}, "
                f"{tuple(owner.shape)}, up to the last, found shape {tuple(values.shape)}"
            )


def _transpose(rows: Options) -> Options:
    """The same scores seen from the keys: rows become columns, the diagonal changes its sign."""
    o = dict(zip(DEFAULTS, rows, strict=True))
    left, right = (-1, -1) if o["window"] is None else (o["window"][0], o["window"][1])
    if o["causal"]:
        right = 0
    if o["q_offset"] is not None:
        o["q_offset"] = _negated(o["q_offset"])
    elif isinstance(o["causal"], str) and o["causal"] == "top_left":
        o["q_offset"] = 0
    o["window"], o["causal"] = (right, left), False
    o["mask"], o["bias"] = _swap_last_axes(o["mask"]), _swap_last_axes(o["bias"])
    o["q_lengths"], o["kv_lengths"] = o["kv_lengths"], o["q_lengths"]
    o["cu_seqlens_q"], o["cu_seqlens_k"] = o["cu_seqlens_k"], o["cu_seqlens_q"]
    return tuple(o.values())


def _negated(offset: Any) -> Any:
    if isinstance(offset, np.ndarray) or not is_array(offset):
        return -np.asarray(offset, dtype=np.int64)
    return -offset


def _swap_last_axes(pairs: Any) -> Any:
    """A mask or bias over (.., Sq, Sk) as one over (.., Sk, Sq)."""
    if pairs is None:
        return None
    pairs = pairs if is_array(pairs) else np.asarray(pairs)
    if pairs.ndim == 0:
        return pairs
    return (pairs.reshape(1, -1) if pairs.ndim == 1 else pairs).swapaxes(-1, -2)


def _head_axis(array: Any, options: Options) -> int | None:
    """Where the heads are, counted from the end; rank 2 has none."""
    if array.ndim == 2:
        return None
    return -3 if dict(zip(DEFAULTS, options, strict=True))["layout"] == "bhsd" else -2


def _repeat_heads(k: Any, q: Any, options: Options) -> Any:
    """k with a head for each of q's."""
    axis = _head_axis(q, options)
    if axis is None or k.shape[axis] == q.shape[axis]:
        return k
    if isinstance(k, np.ndarray):
        return np.repeat(k, q.shape[axis] // k.shape[axis], axis=axis)
    return namespace(k).repeat(k, q.shape[axis] // k.shape[axis], axis=axis)


def _sum_groups(dk_repeated: Any, k: Any, options: Options) -> Any:
    """The gradient of k from that of `_repeat_heads`; the sum is rounded once."""
    axis = _head_axis(k, options)
    if axis is None or dk_repeated.shape == k.shape:
        return dk_repeated
    heads, axis = k.shape[axis], k.ndim + axis
    group = dk_repeated.shape[axis] // heads
    parts = dk_repeated.reshape((*k.shape[:axis], heads, group, *k.shape[axis + 1 :]))
    xp = namespace(parts)
    return xp.astype(xp.sum(widened(parts), axis=axis + 1), k.dtype)
