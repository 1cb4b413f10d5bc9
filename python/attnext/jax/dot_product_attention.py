"""`jax.nn.dot_product_attention` on attnext's kernels: JAX's signature and JAX's conventions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from attnext.arguments import flag
from attnext.options import DEFAULTS

from .operators import attend
from .problem import as_array, read_problem

#: What the call of attention names otherwise than the caller.
NAMES = {
    "q": "query", "k": "key", "v": "value", "q_lengths": "query_seq_lengths",
    "kv_lengths": "key_value_seq_lengths", "window": "local_window_size",
}  # fmt: skip


def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    *,
    scale: Any = None,
    is_causal: bool = False,
    query_seq_lengths: Any = None,
    key_value_seq_lengths: Any = None,
    local_window_size: int | tuple[int, int] | None = None,
    implementation: None = None,
    return_residual: bool = False,
) -> Any:
    """`jax.nn.dot_product_attention`, without the score matrix.

    Parameters
    ----------
    query : array (B, T, N, H) or (T, N, H)
    key, value : array (B, S, K, H) or (S, K, H)
        N is a multiple of K.
    bias : array broadcastable to (B, N, T, S), optional
        Added to the scores.
    mask : bool array broadcastable to (B, N, T, S), optional
        True: may attend.
    scale : float or scalar array, optional
        Default: ``1 / sqrt(H)``.
    is_causal : bool
        Query i sees the keys up to i (aligned at the top left, unlike `attention`'s default).
    query_seq_lengths, key_value_seq_lengths : integer array (B,), optional
        How much of each padded sequence exists.
    local_window_size : int or (left, right), optional
        Query i sees the keys from ``i - left`` to ``i + right``, inclusive.
    implementation : None
        There is one: it is for `jax.nn.dot_product_attention` alone to choose among its own.
    return_residual : bool
        Also return the logarithm of each row's sum.

    Returns
    -------
    out : array like query
        With value's last axis.
    residual : array (B, T, N) or (T, N)
        Only with `return_residual`; in key's dtype, as JAX has it. Both have gradients.

    Raises
    ------
    ValueError, TypeError, NotImplementedError, RuntimeError
        As in `attention`, in the words of these arguments.

    Notes
    -----
    A query without any visible key gets 0; `jax.nn.dot_product_attention` gives it the mean of all
    values.

    Examples
    --------
    >>> import jax
    >>> import attnext.jax
    >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 100, 8, 64))
    >>> ours = attnext.jax.dot_product_attention(q, k, v, is_causal=True)
    >>> theirs = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    >>> bool(jax.numpy.allclose(ours, theirs, atol=1e-5))
    True
    """
    name = "dot_product_attention"
    if implementation is not None:
        raise ValueError(f"{name}: implementation must be None, found {implementation!r}")
    options = {
        **DEFAULTS,
        "layout": "bshd",
        "q_offset": 0,  # JAX counts window and diagonal from the first query and key
        "causal": flag(name, "is_causal", is_causal),
        "window": _window(name, local_window_size),
        "scale": scale,
        "bias": bias,
        "mask": mask,
        "q_lengths": query_seq_lengths,
        "kv_lengths": key_value_seq_lengths,
    }
    arrays = {"q": query, "k": key, "v": value}
    arrays = {x: as_array(name, NAMES[x], array) for x, array in arrays.items()}
    if arrays["q"].ndim not in (3, 4):
        raise ValueError(
            f"{name}: query must have axes (B, T, N, H) or (T, N, H), "
            f"found shape {arrays['q'].shape}"
        )
    is_residual_wanted = flag(name, "return_residual", return_residual)
    problem = read_problem(name, arrays, options, names=NAMES)
    out, lse = map(problem.in_callers_axes, attend(problem.static, problem.arrays))
    if not is_residual_wanted:
        return out
    return out, jnp.swapaxes(lse, -1, -2).astype(arrays["k"].dtype)


def _window(name: str, size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 0 for side in sides):
        raise ValueError(
            f"{name}: local_window_size must be an int of at least 0 or a pair, found {size!r}"
        )
    return sides[0], sides[1]
