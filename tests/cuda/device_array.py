"""What is an array in CUDA memory, where there is no GPU? The emulator's memory, behind DLPack."""

import ctypes
from pathlib import Path

import numpy as np

from attnext import _core

EMULATED = 3  # attnext_backend
DLPACK_CUDA = 2


def library():
    """The C interface of the installed libattnext, which `_core` has loaded already."""
    loaded = ctypes.CDLL(str(next(Path(_core.__file__).parent.glob("lib/libattnext.so*"))))
    loaded.attnext_device_copy.argtypes = [
        ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_size_t,
    ]  # fmt: skip
    loaded.attnext_last_error.restype = ctypes.c_char_p
    return loaded


class Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", Deleter)]


python = ctypes.PyDLL(None)  # `ctypes.pythonapi` is everybody's: JAX gives it other argument types
new_capsule = python.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
pointer_of = python.PyCapsule_GetPointer
pointer_of.restype = ctypes.c_void_p
pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]


def require(status):
    assert status == 0, library().attnext_last_error()


class DeviceArray:
    """A NumPy array's copy in the emulator's memory, of a library that nobody knows.

    `streams` are those it was asked for, `lent` counts exports that were not given back.
    """

    def __init__(self, array, device=0):
        self.array, self.device, self.streams = np.ascontiguousarray(array), device, []
        self.lent, self.deleter, self.exports = 0, Deleter(self.take_back), []
        self.memory = ctypes.c_void_p()
        self.library = library()
        nbytes = ctypes.c_size_t(self.array.nbytes)
        require(
            self.library.attnext_device_allocate(EMULATED, 0, nbytes, ctypes.byref(self.memory))
        )
        source = self.array.ctypes.data
        require(self.library.attnext_device_copy(
            EMULATED, 0, None, self.memory, source, self.array.nbytes
        ))  # fmt: skip

    def __del__(self):
        self.library.attnext_device_free(EMULATED, 0, self.memory)

    def take_back(self, _):
        self.lent -= 1

    def __dlpack_device__(self):
        return (DLPACK_CUDA, self.device)

    def __dlpack__(self, *, stream=None):
        self.streams.append(stream)
        ndim = self.array.ndim
        axes = ctypes.c_int64 * ndim
        strides = [size // self.array.itemsize for size in self.array.strides]
        shape_and_strides = [axes(*self.array.shape), axes(*strides)]
        kind = {"f": 2, "i": 0, "b": 6}[self.array.dtype.kind]
        tensor = Tensor(
            self.memory.value, DLPACK_CUDA, self.device, ndim, kind, 8 * self.array.itemsize, 1,
            *(ctypes.cast(x, ctypes.POINTER(ctypes.c_int64)) for x in shape_and_strides), 0,
        )  # fmt: skip
        managed = Managed(tensor, None, self.deleter)
        self.exports.append((managed, shape_and_strides))
        self.lent += 1
        return new_capsule(ctypes.addressof(managed), b"dltensor", None)


def address_of(capsule):
    """Where the memory of an exported tensor begins."""
    pointer = pointer_of(capsule, b"dltensor")
    return ctypes.cast(pointer, ctypes.POINTER(Managed)).contents.tensor.data


def to_numpy(result, dtype):
    """What a result in the emulator's memory holds."""
    if isinstance(result, DeviceArray):
        array = np.empty(result.array.shape, dtype)
        copied = (array.ctypes.data, result.memory, array.nbytes)
        require(result.library.attnext_device_copy(EMULATED, 0, None, *copied))
        return array
    assert result.__dlpack_device__() == (DLPACK_CUDA, 0)
    capsule = result.__dlpack__()
    tensor = ctypes.cast(pointer_of(capsule, b"dltensor"), ctypes.POINTER(Managed)).contents.tensor
    array = np.empty(tensor.shape[: tensor.ndim], dtype)
    require(library().attnext_device_copy(
        EMULATED, 0, None, array.ctypes.data, tensor.data, array.nbytes
    ))  # fmt: skip
    return array
