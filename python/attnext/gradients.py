"""What are the gradients of attention? Those of all arrays that went in, or those wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import _core
from .arguments import flag, items
from .libraries import is_known, rounded
from .options import Options, pack_options, take_options

__all__ = ["AttentionGrads", "attention_backward", "attention_vjp"]

#: What `_core.backward` takes for every gradient.
ALL = -1


class AttentionGrads(NamedTuple):
    """Gradients, each in the type and shape of what it belongs to; None where that was absent."""

    dq: Any
    dk: Any
    dv: Any
    dbias: Any = None
    dalibi_slopes: Any = None
    dsinks: Any = None
    dscale: Any = None
    dweight: Any = None
    dscore_bias: Any = None


@take_options
def attention_backward(
    dout: Any,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    *,
    dlse: Any = None,
    deterministic: bool = True,
    wanted: Sequence[str] | None = None,
    **options: Any,
) -> AttentionGrads:
    """Gradients of ``sum(dout * out) + sum(dlse * lse)`` for all arrays that went into `attention`.

    Parameters
    ----------
    dout : array like out
        Gradient of out.
    q, k, v : array
        As given to `attention`.
    out, lse : array
        What `attention` returned for them, with the same options and ``return_lse=True``. For
        float16 and bfloat16, out may be of float32, as `attention` fills one given to it: the
        gradients are then more exact.
    dlse : array like lse, optional
        Gradient of lse; None: zero.
    deterministic : bool
        Accepted for the sake of other libraries' users: every pass is deterministic.
    wanted : sequence of str, optional
        The fields of `AttentionGrads` that are needed, as ``("dq", "dbias")``; the others are None,
        and work that only they need is left out. None: all.
    **options
        The same as in the forward call, see `attention`; `block_table` is not supported.

    Returns
    -------
    AttentionGrads
        (dq, dk, dv, dbias, dalibi_slopes, dsinks, dscale, dweight, dscore_bias). `dscale` exists
        where `scale` is an array; `dweight` and `dscore_bias` belong to `AdditiveScore`.

    Raises
    ------
    ValueError, TypeError, NotImplementedError, RuntimeError
        As in `attention`; `wanted` names something else.

    Notes
    -----
    The scores are computed again from q and k, as in Dao et al. (2022). Sums over batch, heads, and
    broadcast axes of a bias are taken in a fixed order: the result does not depend on the number of
    threads.

    Examples
    --------
    >>> import numpy as np
    >>> import attnext
    >>> q, k, v, dout = np.random.default_rng(0).standard_normal((4, 10, 16))
    >>> out, lse = attnext.attention(q, k, v, causal=True, return_lse=True)
    >>> grads = attnext.attention_backward(dout, q, k, v, out, lse, causal=True)
    >>> grads.dk.shape, grads.dbias
    ((10, 16), None)
    """
    values, is_reference = pack_options("attention_backward", options)
    fields = ALL if wanted is None else _fields("attention_backward", wanted)
    return _backward((dout, q, k, v, out, lse), dlse, values, is_reference, fields)


def _fields(function: str, wanted: Sequence[str]) -> int:
    """The gradients wanted, a bit for each in their order."""
    names = items(function, "wanted", wanted)
    unknown = [name for name in names if name not in AttentionGrads._fields]
    if unknown:
        raise ValueError(
            f"{function}: wanted must name gradients among {', '.join(AttentionGrads._fields)}, "
            f"found {unknown[0]!r}"
        )
    return sum(1 << i for i, name in enumerate(AttentionGrads._fields) if name in names)


def _backward(
    arrays: tuple[Any, ...], dlse: Any, values: Options, is_reference: bool, fields: int
) -> AttentionGrads:
    if is_reference:
        from .reference_backend import run_backward

        grads = run_backward(arrays, dlse, values)
        return AttentionGrads(*(x if fields >> i & 1 else None for i, x in enumerate(grads)))
    dout, q, k, v, out, lse = arrays
    return AttentionGrads(*_core.backward(dout, q, k, v, out, lse, dlse, values, 0, fields))


@take_options
def attention_vjp(
    q: Any, k: Any, v: Any, *, return_lse: bool = False, **options: Any
) -> tuple[Any, Callable[..., AttentionGrads]]:
    """`attention`, and the function that takes a gradient of its result back to its inputs.

    Parameters
    ----------
    q, k, v : array
        See `attention`.
    return_lse : bool
        Return ``((out, lse), vjp)`` instead of ``(out, vjp)``.
    **options
        See `attention`.

    Returns
    -------
    out : array
        As from `attention`.
    vjp : callable
        ``vjp(dout, dlse=None, wanted=None)`` returns `AttentionGrads`, as `attention_backward`
        does. It keeps the inputs, out and lse; change none of them before you call it. For float16
        and bfloat16 it keeps out in float32, which makes its gradients more exact than those of
        `attention_backward` from a rounded out.

    Raises
    ------
    ValueError, TypeError, NotImplementedError, RuntimeError
        As in `attention`.

    Examples
    --------
    >>> import numpy as np
    >>> import attnext
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 10, 16))
    >>> out, vjp = attnext.attention_vjp(q, k, v, score="neg_sq_l2", scale=np.array([0.5]))
    >>> vjp(np.ones_like(out)).dscale.shape
    (1,)
    """
    is_lse_wanted = flag("attention_vjp", "return_lse", return_lse)
    values, is_reference = pack_options("attention_vjp", options)
    if is_reference:
        from .reference_backend import run_forward

        kept, lse = run_forward(q, k, v, values, True, None)
        out = kept
    elif is_known(q):
        kept, lse = _core.forward(q, k, v, values, True, None, 0, True)
        out = rounded(kept, q)
    else:
        kept, lse = _core.forward(q, k, v, values, True, None, 0, False)
        out = kept

    def vjp(dout: Any, dlse: Any = None, wanted: Sequence[str] | None = None) -> AttentionGrads:
        fields = ALL if wanted is None else _fields("attention_vjp", wanted)
        return _backward((dout, q, k, v, kept, lse), dlse, values, is_reference, fields)

    return ((out, lse) if is_lse_wanted else out), vjp
