"""How is a sequence summed up in one vector? By attention with one learned query."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .attention import AdditiveScore, attention
from .errors import speaking_of
from .gradients import attention_vjp
from .libraries import is_array, namespace

__all__ = ["PoolGrads", "attention_pool", "attention_pool_backward"]


class PoolGrads(NamedTuple):
    """Gradients of `attention_pool`; without values `dvalues` is None and `dx` holds both parts."""

    dx: Any
    dweight: Any
    dvalues: Any = None


def attention_pool(x: Any, weight: Any, *, values: Any = None, lengths: Any = None) -> Any:
    """``sum_j p_j values_j`` with ``p = softmax(weight . tanh(x_j))`` over the sequence.

    Parameters
    ----------
    x : array (B, S, D) or (S, D)
        What the weights are made from: any float dtype, any library.
    weight : array (D,)
        The learned query, of x's library or NumPy.
    values : array (B, S, Dv) or (S, Dv), optional
        What is summed; None: x itself.
    lengths : integer array (B,), optional
        How much of each sequence exists; for x (S, D) an int.

    Returns
    -------
    pooled : array (B, Dv) or (Dv,)
        In x's library and dtype; 0 for a sequence of length 0.

    Raises
    ------
    ValueError, TypeError
        As in `attention`.

    Notes
    -----
    The word and sentence attention of Yang et al. (2016), once x is projected: the additive score
    of a zero query.

    Examples
    --------
    >>> import numpy as np
    >>> import attnext
    >>> x, weight = np.ones((2, 5, 3)), np.zeros(3)
    >>> attnext.attention_pool(x, weight, lengths=[5, 2])
    array([[1., 1., 1.],
           [1., 1., 1.]])
    """
    with speaking_of("attention_pool", _names(values)):
        q, k, v, options = _as_attention(x, weight, values, lengths)
        return _pooled(attention(q, k, v, **options))


def attention_pool_backward(
    dpooled: Any, x: Any, weight: Any, *, values: Any = None, lengths: Any = None
) -> PoolGrads:
    """Gradients of ``sum(dpooled * attention_pool(x, weight, ..))``.

    Parameters
    ----------
    dpooled : array like the result
        Its gradient.
    x, weight, values, lengths
        As given to `attention_pool`.

    Returns
    -------
    PoolGrads
        (dx, dweight, dvalues), each like what it belongs to.

    Raises
    ------
    ValueError, TypeError
        As in `attention_pool`.

    Examples
    --------
    >>> import numpy as np
    >>> import attnext
    >>> x, weight = np.random.default_rng(0).standard_normal((5, 3)), np.ones(3)
    >>> attnext.attention_pool_backward(np.ones(3), x, weight).dweight.shape
    (3,)
    """
    with speaking_of("attention_pool_backward", _names(values)):
        q, k, v, options = _as_attention(x, weight, values, lengths)
        _check_dpooled(dpooled, (*x.shape[:-2], v.shape[-1]))
        _, vjp = attention_vjp(q, k, v, **options)
        grads = vjp(dpooled[..., None, None, :])
    dx, dvalues = _without_heads(grads.dk), _without_heads(grads.dv)
    if values is None:
        dx += dvalues
        return PoolGrads(dx, grads.dweight)
    return PoolGrads(dx, grads.dweight, dvalues)


def _names(values: Any) -> dict[str, str]:
    """What the call of attention names otherwise than the caller."""
    return {
        "q": "x",
        "k": "x",
        "v": "x" if values is None else "values",
        "kv_lengths": "lengths",
        "AdditiveScore.weight": "weight",
        "dout": "dpooled",
    }


def _as_attention(
    x: Any, weight: Any, values: Any, lengths: Any
) -> tuple[Any, Any, Any, dict[str, Any]]:
    """q, k, v with one head and one query per sequence, and the options."""
    for name, array in (("x", x), ("values", x if values is None else values)):
        if not is_array(array):
            raise TypeError(
                f"attention: {name} must be an array of NumPy or one with __dlpack__, "
                f"found {type(array).__name__}"
            )
        if array.ndim not in (2, 3) or array.ndim != x.ndim:
            raise ValueError(
                f"attention: {name} must have axes (B, S, D) or (S, D), as x, found shape "
                f"{tuple(array.shape)}"
            )
    if isinstance(lengths, np.ndarray) or (lengths is not None and not is_array(lengths)):
        lengths = np.atleast_1d(lengths)
    shape = (*x.shape[:-2], 1, 1, x.shape[-1])
    if isinstance(x, np.ndarray):
        query = np.zeros(shape, x.dtype)
    else:
        place = getattr(x, "device", None)  # JAX's tracers have none
        query = namespace(x).zeros(shape, dtype=x.dtype, device=place)
    options = {"score": AdditiveScore(weight), "kv_lengths": lengths}
    return query, _with_head(x), _with_head(x if values is None else values), options


def _check_dpooled(dpooled: Any, shape: tuple[int, ...]) -> None:
    if not hasattr(dpooled, "shape"):
        raise TypeError(
            f"attention: dpooled must be an array like the result, found {type(dpooled).__name__}"
        )
    if tuple(dpooled.shape) != shape:
        raise ValueError(
            f"attention: dpooled must have the result's shape {shape}, found {tuple(dpooled.shape)}"
        )


def _with_head(x: Any) -> Any:
    return x[..., None, :, :]


def _without_heads(x: Any) -> Any:
    return x[..., 0, :, :]


def _pooled(out: Any) -> Any:
    return out[..., 0, 0, :]
