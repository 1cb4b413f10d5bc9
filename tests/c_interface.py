"""How do the tests call the C interface? attnext.h in ctypes, for memory of their own choosing."""

import ctypes
from pathlib import Path

import numpy as np

CODES = {"float64": 1, "float32": 2, "float16": 3, "bfloat16": 4, "bool": 5, "int32": 6, "int64": 7}


class Tensor(ctypes.Structure):
    """attnext_tensor."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("shape", ctypes.c_int64 * 4), ("strides", ctypes.c_int64 * 4),
        ("ndim", ctypes.c_int32), ("dtype", ctypes.c_int32),
    )  # fmt: skip


class Options(ctypes.Structure):
    """attnext_options, set up by defaults."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t), ("score", ctypes.c_int32), ("causal", ctypes.c_int32),
        ("scale", ctypes.c_double), ("softcap", ctypes.c_double),
        ("window_left", ctypes.c_int64), ("window_right", ctypes.c_int64),
        ("dropout", ctypes.c_double), ("seed", ctypes.c_uint64),
        ("dropout_stream", ctypes.c_uint32), ("deterministic", ctypes.c_int32),
        *((name, Tensor) for name in (
            "scale_per_head", "q_offset", "mask", "bias", "alibi_slopes", "sinks", "weight",
            "score_bias", "q_lengths", "kv_lengths", "cu_seqlens_q", "cu_seqlens_k", "block_table",
        )),
        ("backend", ctypes.c_int32), ("memory", ctypes.c_int32), ("device", ctypes.c_int32),
        ("reserved", ctypes.c_int32), ("stream", ctypes.c_void_p),
    )  # fmt: skip

    def __init__(self, **given):
        super().__init__(struct_size=ctypes.sizeof(Options), scale=float("nan"), deterministic=1)
        self.window_left = self.window_right = -1
        for name, value in given.items():
            setattr(self, name, tensor(value) if isinstance(value, np.ndarray) else value)


class Gradients(ctypes.Structure):
    """attnext_gradients; those not given are not wanted."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        *((name, Tensor) for name in (
            "dq", "dk", "dv", "dbias", "dalibi_slopes", "dsinks", "dscale", "dweight",
            "dscore_bias",
        )),
    )  # fmt: skip

    def __init__(self, **given):
        super().__init__(struct_size=ctypes.sizeof(Gradients))
        for name, x in given.items():
            setattr(self, name, tensor(x))


def tensor(x):
    """A view of ``x``, which must outlive it."""
    strides = [stride // x.itemsize for stride in x.strides]
    return Tensor(
        x.ctypes.data,
        (ctypes.c_int64 * 4)(*x.shape),
        (ctypes.c_int64 * 4)(*strides),
        x.ndim,
        CODES[x.dtype.name],
    )


def load():
    """The library that the installed package runs on."""
    from attnext import _core

    library = ctypes.CDLL(str(Path(_core.__file__).parent / "lib" / "libattnext.so"))
    library.attnext_last_error.restype = ctypes.c_char_p
    return library


def call(library, name, *arguments):
    """Calls ``attnext_<name>`` with arrays, Options, Gradients or None."""
    views = [tensor(x) if isinstance(x, np.ndarray) else x for x in arguments]
    status = getattr(library, f"attnext_{name}")(
        *(None if x is None else ctypes.byref(x) for x in views)
    )
    assert status == 0, library.attnext_last_error().decode()
