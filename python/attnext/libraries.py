"""How are arrays of any library handled alike, away from the kernels? Through the array API."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

#: What `namespace` has found, which takes longer than attention of a few tokens.
_NAMESPACES: WeakKeyDictionary[type, Any] = WeakKeyDictionary()


def namespace(array: Any) -> Any:
    """The array API functions for `array`'s library; TypeError where that is not a known one."""
    found = _NAMESPACES.get(type(array))
    if found is None:
        from array_api_compat import array_namespace

        found = _NAMESPACES[type(array)] = array_namespace(array)
    return found


def is_array(value: Any) -> bool:
    """Whether `value` is an array rather than a number, a list or nothing."""
    return isinstance(value, np.ndarray) or hasattr(value, "__dlpack__")


def cuda_stream(array: Any) -> int | None:
    """The address of the CUDA stream that the library of `array` works on now, 0 for the default.

    None where the library has no such thing (JAX): what it is given must be complete.
    """
    from array_api_compat import is_cupy_array, is_torch_array

    if is_torch_array(array):
        import torch

        return int(torch.cuda.current_stream(array.device).cuda_stream)
    if is_cupy_array(array):
        import cupy

        with array.device:
            return int(cupy.cuda.get_current_stream().ptr)
    return None


def current_device(array: Any) -> AbstractContextManager[Any]:
    """A context in which the CUDA device of `array` is its library's current one.

    PyTorch exports tensors of no other, and CuPy orders by events of the current one.
    """
    from array_api_compat import is_cupy_array, is_torch_array

    if is_torch_array(array):
        import torch

        device: AbstractContextManager[Any] = torch.cuda.device(array.device)
        return device
    return array.device if is_cupy_array(array) else nullcontext()


def to_host(array: Any) -> Any:
    """A copy in host memory, of the array's own library or, for CuPy and strangers, of NumPy."""
    if is_known(array):
        from array_api_compat import to_device

        return to_device(array, "cpu")
    return np.from_dlpack(array, device="cpu")


def empty_beside(like: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """An uninitialised array where `like` is; None of a library whose arrays never change."""
    from array_api_compat import is_cupy_array, is_torch_array

    if not is_torch_array(like) and not is_cupy_array(like):
        return None
    xp = namespace(like)
    is_its_own = str(like.dtype).rpartition(".")[2] == dtype
    with current_device(like):  # CuPy's own `empty` knows no other
        return xp.empty(
            shape, dtype=like.dtype if is_its_own else getattr(xp, dtype), device=like.device
        )


def to_numpy(value: Any) -> Any:
    """An array as one of NumPy; bfloat16 becomes float32, which holds it. All else as it is."""
    if isinstance(value, np.ndarray) or not is_array(value):
        return value
    if "bfloat16" in str(value.dtype):
        xp = namespace(value)
        value = xp.astype(value, xp.float32)
    return np.from_dlpack(value)


def from_numpy(result: np.ndarray[Any, Any], like: Any, *, is_accumulator: bool = False) -> Any:
    """A float64 result in the library and dtype of `like`, or in the dtype of like's sums."""
    is_float64 = "float64" in str(getattr(like, "dtype", "float64"))
    wide = np.asarray(result).astype(np.float64 if is_float64 else np.float32)
    if isinstance(like, np.ndarray):
        return wide if is_accumulator else wide.astype(like.dtype)
    if not is_array(like):
        return wide
    xp = namespace(like)
    array = xp.from_dlpack(wide)
    return array if is_accumulator else xp.astype(array, like.dtype)


def is_known(array: Any) -> bool:
    """Whether `array` is of a library that `namespace` finds, not only one with ``__dlpack__``."""
    if isinstance(array, np.ndarray):
        return True
    from array_api_compat import is_array_api_obj

    return bool(is_array_api_obj(array))


def rounded(wide: Any, like: Any) -> Any:
    """`wide` in the dtype of `like`, an array of the same library; infinite where it overflows."""
    if wide.dtype == like.dtype:
        return wide
    if isinstance(wide, np.ndarray):
        with np.errstate(over="ignore"):
            return wide.astype(like.dtype)
    return namespace(wide).astype(wide, like.dtype)


def widened(array: Any) -> Any:
    """In float32, or as it is where it is of that or float64 already."""
    if str(array.dtype).rpartition(".")[2] in ("float32", "float64"):
        return array
    xp = namespace(array)
    return xp.astype(array, xp.float32)
