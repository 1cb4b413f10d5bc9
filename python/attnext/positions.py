"""How does attention learn where things are? Sinusoids, rotations, and slopes of linear biases."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from .arguments import integer, require_floats
from .libraries import namespace, to_numpy, widened

__all__ = ["alibi_slopes", "rotary", "rotary_backward", "sinusoidal_positions"]


def sinusoidal_positions(seqlen: int, dim: int) -> Any:
    """The fixed position vectors of Vaswani et al. (2017), "Attention is all you need".

    Parameters
    ----------
    seqlen, dim : int
        Positions, and axes of each vector; an odd dim ends with a sine.

    Returns
    -------
    numpy.ndarray (seqlen, dim) of float32
        ``sin(i / 10000**(2 j / dim))`` at [i, 2 j] and the cosine of the same at [i, 2 j + 1].

    Raises
    ------
    ValueError
        A negative seqlen or dim.
    TypeError
        Not an integer.

    Examples
    --------
    >>> import attnext
    >>> attnext.sinusoidal_positions(2, 4)[0]
    array([0., 1., 0., 1.], dtype=float32)
    """
    seqlen = integer("sinusoidal_positions", "seqlen", seqlen)
    dim = integer("sinusoidal_positions", "dim", dim)
    if seqlen < 0 or dim < 0:
        raise ValueError(
            f"sinusoidal_positions: seqlen and dim must be at least 0, found {seqlen} and {dim}"
        )
    angles = _angles(np.arange(seqlen), dim, 10000.0)
    table = np.empty((seqlen, dim), np.float32)
    table[:, 0::2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles[:, : dim // 2])
    return table


def rotary(
    x: Any,
    positions: Any,
    *,
    theta: float = 10000.0,
    interleaved: bool = False,
    layout: str = "bhsd",
) -> Any:
    """Rotates pairs of the last axis by an angle that grows with the position.

    Parameters
    ----------
    x : array (B, H, S, D), (H, S, D) or (S, D)
        q or k: any float dtype, any library; D is even.
    positions : array (S,) or (B, S), integer or float
        Where each row is.
    theta : float
        Pair j turns by ``position * theta**(-2 j / D)``; finite and above 0.
    interleaved : bool
        False: the pairs are (j, j + D/2), as in GPT-NeoX and Llama. True: (2 j, 2 j + 1), as in
        RoFormer and GPT-J.
    layout : {"bhsd", "bshd", "thd"}
        As in `attention`.

    Returns
    -------
    array like x
        Computed in float32 (float64 for float64) and rounded once.

    Raises
    ------
    ValueError
        An odd D, positions that do not fit x, or a theta out of range.
    TypeError
        x is no array of a float dtype or requires grad; positions are no numbers to be read.

    See Also
    --------
    rotary_backward : Its gradient, which is the inverse rotation.

    Notes
    -----
    The rotary position embedding of RoFormer (Su et al., 2021).

    Examples
    --------
    >>> import numpy as np
    >>> import attnext
    >>> q = np.random.default_rng(0).standard_normal((2, 8, 100, 64))
    >>> turned = attnext.rotary(q, np.arange(100))
    >>> bool(np.allclose(attnext.rotary_backward(turned, np.arange(100)), q))
    True
    """
    _check_rotary("rotary", "x", x, theta, layout)
    return _rotate(x, _read_positions("rotary", positions, x, layout), theta, interleaved, layout)


def rotary_backward(
    dout: Any,
    positions: Any,
    *,
    theta: float = 10000.0,
    interleaved: bool = False,
    layout: str = "bhsd",
) -> Any:
    """The gradient of x in `rotary`, given that of its result: the inverse rotation.

    Parameters
    ----------
    dout : array like x
        Gradient of the result.
    positions, theta, interleaved, layout
        As in `rotary`.

    Returns
    -------
    array like dout

    Raises
    ------
    ValueError, TypeError
        As in `rotary`.
    """
    _check_rotary("rotary_backward", "dout", dout, theta, layout)
    opposite = -_read_positions("rotary_backward", positions, dout, layout)
    return _rotate(dout, opposite, theta, interleaved, layout)


def alibi_slopes(num_heads: int) -> Any:
    """The slopes of linear biases (ALiBi), for `attention`'s option of that name.

    Parameters
    ----------
    num_heads : int
        At least 1.

    Returns
    -------
    numpy.ndarray (num_heads,) of float32
        ``2**(-8 h / n)`` for h = 1 .. n where n, the number of heads, is a power of two. Otherwise
        those of the next smaller power of two, followed by every other slope of the next larger
        one.

    Raises
    ------
    ValueError
        Fewer heads than 1.
    TypeError
        Not an integer.

    Notes
    -----
    From "Train short, test long" (Press et al., 2022) and the code its authors published.

    Examples
    --------
    >>> import attnext
    >>> attnext.alibi_slopes(4)
    array([0.25      , 0.0625    , 0.015625  , 0.00390625], dtype=float32)
    """
    num_heads = integer("alibi_slopes", "num_heads", num_heads)
    if num_heads < 1:
        raise ValueError(f"alibi_slopes: num_heads must be at least 1, found {num_heads}")
    power = 2 ** (num_heads.bit_length() - 1)
    slopes = _geometric_slopes(power)
    rest = _geometric_slopes(2 * power)[0::2][: num_heads - power]
    return np.concatenate([slopes, rest]).astype(np.float32)


def _geometric_slopes(count: int) -> np.ndarray[Any, Any]:
    return 2.0 ** (-8.0 * np.arange(1, count + 1) / count)


def _angles(positions: Any, dim: int, theta: float) -> np.ndarray[Any, Any]:
    """In float64: a float32 angle of a far position is off by more than the result's rounding."""
    frequencies = theta ** (-np.arange(0, dim, 2) / dim)
    return np.asarray(positions, np.float64)[..., None] * frequencies


def _rotate(
    x: Any, positions: np.ndarray[Any, Any], theta: float, interleaved: bool, layout: str
) -> Any:
    dim = x.shape[-1]
    angles = _angles(positions, dim, float(theta))
    head_axis = _head_axis(x, layout)
    angles = angles if head_axis is None else np.expand_dims(angles, head_axis)
    xp, wide = namespace(x), widened(x)
    cos, sin = (_as(function(angles), wide, xp) for function in (np.cos, np.sin))
    first, second = (
        (wide[..., 0::2], wide[..., 1::2])
        if interleaved
        else (wide[..., : dim // 2], wide[..., dim // 2 :])
    )
    turned = (first * cos - second * sin, second * cos + first * sin)
    joined = (
        xp.reshape(xp.stack(turned, axis=-1), x.shape)
        if interleaved
        else xp.concat(turned, axis=-1)
    )
    return xp.astype(joined, x.dtype)


def _as(table: np.ndarray[Any, Any], like: Any, xp: Any) -> Any:
    """A float64 table in the library and dtype of `like`."""
    table = table.astype(np.float64 if "float64" in str(like.dtype) else np.float32)
    return table if isinstance(like, np.ndarray) else xp.from_dlpack(table)


def _head_axis(x: Any, layout: str) -> int | None:
    """Counted from the end; rank 2 has none."""
    return None if x.ndim == 2 else -3 if layout == "bhsd" else -2


def _check_rotary(function: str, name: str, x: Any, theta: float, layout: str) -> None:
    require_floats(function, name, x)
    if layout not in ("bhsd", "bshd", "thd"):
        raise ValueError(f"{function}: layout must be 'bhsd', 'bshd' or 'thd', found {layout!r}")
    if x.ndim not in ((3,) if layout == "thd" else (2, 3, 4)) or x.shape[-1] % 2:
        raise ValueError(
            f"{function}: {name} must have 2 to 4 axes (3 for layout thd), the last of even "
            f"length, found shape {tuple(x.shape)}"
        )
    if not isinstance(theta, Real):
        raise TypeError(f"{function}: theta must be a number, found {type(theta).__name__}")
    if not 0 < theta < np.inf:
        raise ValueError(f"{function}: theta must be finite and above 0, found {theta}")


def _read_positions(function: str, positions: Any, x: Any, layout: str) -> np.ndarray[Any, Any]:
    """Positions (S,) or (B, S), in float64."""
    try:
        read = np.asarray(to_numpy(positions))
    except MemoryError:
        raise
    except Exception as reason:  # libraries refuse in many ways what has no plain memory
        found = type(positions).__name__
        raise TypeError(
            f"{function}: positions must be an array of numbers, found {found}: {reason}"
        ) from reason
    if read.dtype.kind not in "iuf" and read.dtype.name != "bfloat16":
        raise TypeError(f"{function}: positions must be integers or floats, found {read.dtype}")
    rows = x.shape[-2 if _head_axis(x, layout) != -2 else -3]
    wanted = (x.shape[0], rows) if read.ndim == 2 and x.ndim == 4 else (rows,)
    if read.shape != wanted:
        raise ValueError(
            f"{function}: positions must have shape (S,) or (B, S), here {wanted}, "
            f"found {read.shape}"
        )
    return read.astype(np.float64)
