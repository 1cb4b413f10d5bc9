"""What may a plain argument be? The rules that functions share, and how they refuse."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from .libraries import is_array

FLOAT_DTYPES = ("float64", "float32", "float16", "bfloat16")


def integer(function: str, name: str, value: Any) -> int:
    """`value` as an int, of whatever type an index may be."""
    try:
        return operator.index(value)
    except TypeError:
        found = f"{value!r} of type {type(value).__name__}"
        raise TypeError(f"{function}: {name} must be an integer, found {found}") from None


def flag(function: str, name: str, value: Any) -> bool:
    """`value` as a bool, which nothing else stands for: an array or a text is a mistake."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{function}: {name} must be True or False, found {type(value).__name__}")
    return bool(value)


def items(function: str, name: str, value: Any) -> list[Any]:
    """What a sequence holds."""
    try:
        return list(value)
    except TypeError:
        raise TypeError(
            f"{function}: {name} must be a sequence, found {type(value).__name__}"
        ) from None


def require_floats(function: str, name: str, value: Any) -> None:
    """Refuses what `attention` refuses as q: no array, another dtype, a tensor with a gradient."""
    if not is_array(value):
        raise TypeError(
            f"{function}: {name} must be an array of NumPy or one with __dlpack__, "
            f"found {type(value).__name__}"
        )
    if str(value.dtype).rpartition(".")[2] not in FLOAT_DTYPES:
        raise TypeError(
            f"{function}: {name} must be float64, float32, float16 or bfloat16, found {value.dtype}"
        )
    if getattr(value, "requires_grad", False):
        raise TypeError(
            f"{function}: {name} requires grad, which would be lost here; pass {name}.detach()"
        )
