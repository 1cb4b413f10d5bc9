"""How does attention learn where things are, in JAX? By attnext's positions, traced ones too."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attnext import positions as of_numpy

from .problem import as_array


def sinusoidal_positions(seqlen: int, dim: int) -> Any:
    """`attnext.sinusoidal_positions` as an array of JAX: (seqlen, dim), float32."""
    return jnp.asarray(of_numpy.sinusoidal_positions(seqlen, dim))


def alibi_slopes(num_heads: int) -> Any:
    """`attnext.alibi_slopes` as an array of JAX: (num_heads,), float32."""
    return jnp.asarray(of_numpy.alibi_slopes(num_heads))


def rotary(
    x: Any,
    positions: Any,
    *,
    theta: float = 10000.0,
    interleaved: bool = False,
    layout: str = "bhsd",
) -> Any:
    """`attnext.rotary` for JAX: differentiable, and for positions that are traced.

    Parameters
    ----------
    x : array (B, H, S, D), (H, S, D) or (S, D)
        q or k: any float dtype; D is even.
    positions : array (S,) or (B, S), integer or float
        Where each row is.
    theta : float
        Pair j turns by ``position * theta**(-2 j / D)``.
    interleaved : bool
        False: the pairs are (j, j + D/2); True: (2 j, 2 j + 1).
    layout : {"bhsd", "bshd", "thd"}
        As in `attention`.

    Returns
    -------
    array like x
        Computed in float32 (float64 for float64) and rounded once.

    Raises
    ------
    ValueError, TypeError
        As in `attnext.rotary`.

    Notes
    -----
    Known positions turn by angles of float64, as in `attnext.rotary`. Traced integers turn by the
    fraction of a full turn, in exact integer arithmetic: far positions are as exact as near ones.
    Traced floats turn by a product in their own precision.

    Examples
    --------
    >>> import jax
    >>> import attnext.jax
    >>> q = jax.random.normal(jax.random.key(0), (2, 8, 1, 64))
    >>> jax.jit(lambda q, step: attnext.jax.rotary(q, step[None]))(q, 100_000).shape
    (2, 8, 1, 64)
    """
    x = as_array("rotary", "x", x)
    of_numpy._check_rotary("rotary", "x", x, theta, layout)
    wide = x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
    cos, sin = _cos_sin(x, positions, float(theta), layout, wide.dtype)
    dim = x.shape[-1]
    pairs = (
        (wide[..., 0::2], wide[..., 1::2])
        if interleaved
        else (wide[..., : dim // 2], wide[..., dim // 2 :])
    )
    turned = (pairs[0] * cos - pairs[1] * sin, pairs[1] * cos + pairs[0] * sin)
    joined = jnp.stack(turned, -1).reshape(x.shape) if interleaved else jnp.concatenate(turned, -1)
    return joined.astype(x.dtype)


def _cos_sin(x: Any, positions: Any, theta: float, layout: str, dtype: Any) -> tuple[Any, Any]:
    """The cosine and sine of each pair's angle, broadcastable to x."""
    if isinstance(positions, jax.core.Tracer):
        angles = _traced_angles(x, positions, theta, layout, dtype)
        xp: Any = jnp
    else:
        read = of_numpy._read_positions("rotary", np.asarray(positions), x, layout)
        angles, xp = of_numpy._angles(read, x.shape[-1], theta), np
    axis = of_numpy._head_axis(x, layout)
    angles = angles if axis is None else xp.expand_dims(angles, axis)
    return jnp.asarray(xp.cos(angles), dtype), jnp.asarray(xp.sin(angles), dtype)


def _traced_angles(x: Any, positions: Any, theta: float, layout: str, dtype: Any) -> Any:
    stand_in = np.broadcast_to(np.zeros((), positions.dtype), positions.shape)
    of_numpy._read_positions("rotary", stand_in, x, layout)  # refuses what does not fit
    frequencies = theta ** (-np.arange(0, x.shape[-1], 2) / x.shape[-1])
    if jnp.issubdtype(positions.dtype, jnp.floating):
        return positions.astype(dtype)[..., None] * jnp.asarray(frequencies, dtype)
    turns = _fractions_of_turns(positions, frequencies / (2 * np.pi))
    return turns.astype(dtype) * np.asarray(2 * np.pi / 2**32, dtype)


def _fractions_of_turns(positions: Any, turns_per_step: Any) -> Any:
    """``positions * turns_per_step`` modulo 1, in units of 2**-32, as int32 from -1/2 to 1/2.

    A step is 64 bits after the point, so that a product with 32 bits keeps 32 exact ones: the low
    half contributes what its product carries over.
    """
    steps = (np.mod(turns_per_step, 1.0) * 2.0**64).astype(np.uint64)
    high, low = (steps >> np.uint64(32)).astype(np.uint32), steps.astype(np.uint32)
    count = jnp.abs(positions).astype(jnp.uint32)[..., None]
    turns = jax.lax.bitcast_convert_type(count * high + _high_word(count, low), jnp.int32)
    return jnp.where(positions[..., None] < 0, -turns, turns)


def _high_word(a: Any, b: Any) -> Any:
    """The upper 32 of the 64 bits of a product of uint32."""
    a_high, a_low, b_high, b_low = a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF
    middle = a_high * b_low + (a_low * b_low >> 16)
    other = a_low * b_high + (middle & 0xFFFF)
    return a_high * b_high + (middle >> 16) + (other >> 16)
