"""Where does attention look, in JAX? Weights of chosen rows, and statistics of all."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from attnext.options import take_options
from attnext.passes import AttentionStats

from . import targets
from .attention import named_options
from .operators import accumulator, attend, rows_shape
from .problem import Problem, Static, as_array, read_problem


@take_options
def attention_weights(q: Any, k: Any, *, rows: Any = None, **options: Any) -> Any:
    """`attnext.attention_weights` for JAX: ``p = exp(s - lse)`` of the query rows asked for.

    Parameters
    ----------
    q, k : array
        See `attention`.
    rows : integer array or sequence of int, optional
        Query rows, in any order and more than once if you like; negative ones count from the end.
        None: all.
    **options
        See `attention`. Dropout is not applied. Packed and paged sequences are refused: the size of
        the result would depend on values.

    Returns
    -------
    p : array (B, Hq, len(rows), Sk)
        In q's dtype, without the axes that rank 3 and 2 lack. Its gradient is that of attention to
        an identity matrix: right, and not made for speed.

    Raises
    ------
    ValueError, TypeError, NotImplementedError, RuntimeError
        As in `attention`.

    Examples
    --------
    >>> import jax
    >>> import attnext.jax
    >>> q, k = jax.random.normal(jax.random.key(0), (2, 8, 100, 64))
    >>> attnext.jax.attention_weights(q, k, rows=[-1, 0], causal=True).shape
    (8, 2, 100)
    """
    name = "attention_weights"
    problem = _read(name, q, k, options)
    num_rows = rows_shape(problem.static, problem.arrays["q"])[2]
    row_list = jnp.arange(num_rows) if rows is None else _read_rows(rows, num_rows)
    static = replace(problem.static, dropout=0.0)
    return problem.in_callers_axes(_weights_compiled(static, problem.arrays, row_list))


@take_options
def attention_stats(q: Any, k: Any, **options: Any) -> AttentionStats:
    """`attnext.attention_stats` for JAX: how the weights are spread, without forming them.

    Parameters
    ----------
    q, k : array
        See `attention`.
    **options
        See `attention`. Dropout is not applied. Packed and paged sequences are refused.

    Returns
    -------
    AttentionStats
        ``lse``, ``row_max``, ``entropy``, each (B, Hq, Sq), and ``key_mass`` (B, Hq, Sk), float32
        (float64 for float64). They have no gradient; the lse of `attention` has one.

    Raises
    ------
    ValueError, TypeError, NotImplementedError, RuntimeError
        As in `attention`.
    """
    problem = _read("attention_stats", q, k, options)
    made = _stats_compiled(replace(problem.static, dropout=0.0), problem.arrays)
    return AttentionStats(*map(problem.in_callers_axes, made))


def _read(function: str, q: Any, k: Any, options: dict[str, Any]) -> Problem:
    values = named_options(function, options)
    for name, is_given in (
        ("layout 'thd'", values["layout"] == "thd"),
        ("block_table", values["block_table"] is not None),
    ):
        if is_given:
            raise NotImplementedError(
                f"{function}: {name} makes the result's size depend on values, which JAX cannot "
                "trace; call attnext's function outside of jit, or give padded sequences"
            )
    return read_problem(function, {"q": q, "k": k}, values)


def _read_rows(rows: Any, num_rows: int) -> Any:
    name = "attention_weights"
    row_list = as_array(name, "rows", jnp.asarray(rows))
    if row_list.ndim != 1:
        raise ValueError(f"{name}: rows must have one axis, found shape {row_list.shape}")
    if row_list.size and not jnp.issubdtype(row_list.dtype, jnp.integer):
        raise TypeError(f"{name}: rows must be integers, found {row_list.dtype}")
    if not isinstance(row_list, jax.core.Tracer):
        for row in row_list.tolist():
            if not -num_rows <= row < num_rows:
                raise ValueError(f"{name}: rows must be in [{-num_rows}, {num_rows}), found {row}")
    row_list = row_list.astype(jnp.int32)
    return jnp.where(row_list < 0, row_list + num_rows, row_list)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weights(static: Static, arrays: dict[str, Any], rows: Any) -> Any:
    q, k = arrays["q"], arrays["k"]
    shape = (*rows_shape(static, q)[:2], rows.shape[0], rows_shape(static, k)[2])
    inputs = {**arrays, "rows": rows}
    return targets.call("weights", static.attributes(), inputs, {"p": (shape, q.dtype)})["p"]


def _weights_forward(static: Static, arrays: dict[str, Any], rows: Any) -> tuple[Any, Any]:
    return _weights(static, arrays, rows), (arrays, rows)


def _weights_backward(static: Static, kept: Any, dp: Any) -> tuple[Any, None]:
    """Weights are what attention makes of an identity matrix in the place of v."""
    arrays, rows = kept
    q, k = arrays["q"], arrays["k"]
    num_keys = rows_shape(static, k)[2]
    eye = jnp.eye(num_keys, dtype=q.dtype)
    eye = jnp.broadcast_to(
        eye if static.layout == "bhsd" else eye[:, None], (*k.shape[:-1], num_keys)
    )
    batch, heads, num_rows = rows_shape(static, q)
    dout = jnp.zeros((batch, heads, num_rows, num_keys), dp.dtype).at[:, :, rows].add(dp)
    _, vjp = jax.vjp(lambda arrays: attend(static, {**arrays, "v": eye})[0], arrays)
    (gradients,) = vjp(dout if static.layout == "bhsd" else dout.swapaxes(1, 2))
    return gradients, None


_weights.defvjp(_weights_forward, _weights_backward)
_weights_compiled = jax.jit(_weights, static_argnums=0, inline=True)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _stats_compiled(static: Static, arrays: dict[str, Any]) -> tuple[Any, ...]:
    wide = accumulator(arrays["q"].dtype)
    rows = (rows_shape(static, arrays["q"]), wide)
    keys = ((*rows[0][:2], rows_shape(static, arrays["k"])[2]), wide)
    results = {"lse": rows, "row_max": rows, "entropy": rows, "key_mass": keys}
    return tuple(targets.call("stats", static.attributes(), arrays, results).values())
