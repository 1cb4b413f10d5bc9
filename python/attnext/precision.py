"""How exactly does CUDA multiply float32?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    from typing import Literal

    Precision = Literal["exact", "fast"]

__all__ = ["get_float32_precision", "set_float32_precision"]

# The codes of `attnext_precision`.
PRECISIONS: tuple[Precision, ...] = ("exact", "fast")


def set_float32_precision(precision: Precision) -> None:
    """Sets how every later call multiplies float32 arrays on a CUDA device, from any thread.

    Parameters
    ----------
    precision : {"exact", "fast"}
        "exact", the default: every product and sum in float32. "fast": forward and backward may
        make a product of float32 from three of tf32 on matrix units (Ootomo and Yokota, 2022).
        Results are within the same tolerance; an infinite input, or one beyond 3.4e38, becomes NaN.
        It applies from compute capability 8.0 on, to the scores "dot" and "cosine", and to a
        head_dim of at most 128. Everything else is computed as it always is: `explain` says which
        kernel a call runs, and why. Never is a product made from one of tf32.

    Raises
    ------
    ValueError
        Another value.

    Examples
    --------
    >>> import attnext
    >>> attnext.set_float32_precision("fast")
    >>> attnext.get_float32_precision()
    'fast'
    >>> attnext.set_float32_precision("exact")
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"set_float32_precision: precision must be 'exact' or 'fast', found {precision!r}"
        )
    _core.set_float32_precision(PRECISIONS.index(precision))


def get_float32_precision() -> Precision:
    """How the next call multiplies float32 on a CUDA device: "exact" or "fast"."""
    return PRECISIONS[_core.get_float32_precision()]
