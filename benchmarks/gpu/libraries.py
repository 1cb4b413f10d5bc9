"""How do arrays of PyTorch, CuPy and JAX get to the device and back, and what keeps it busy?"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

import numpy as np

from .common import ROOT
from .worker import Skipped

SPIN = 200_000_000  # clock cycles, a tenth of a second: long beside everything that is tried


def imported(name: str) -> Any:
    """A package with a device to compute on; skips without."""
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:  # the latter: of a library that it loads
        raise Skipped(f"there is no {name}: {error}") from None
    return module


class Torch:
    """PyTorch's tensors."""

    def __init__(self) -> None:
        self.torch = imported("torch")
        if not self.torch.cuda.is_available():
            raise Skipped("torch sees no CUDA device")

    def array(self, host: Any, device: int = 0) -> Any:
        torch = self.torch
        if host.dtype.name == "bfloat16":
            tensor = torch.from_numpy(host.view(np.int16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(host)
        return tensor.to(f"cuda:{device}")

    def host(self, x: Any) -> Any:
        """The bytes."""
        return x.detach().contiguous().cpu().view(self.torch.uint8).numpy()

    def is_ours(self, x: Any, device: int = 0) -> bool:
        return isinstance(x, self.torch.Tensor) and x.device == self.torch.device("cuda", device)

    def num_devices(self) -> int:
        return int(self.torch.cuda.device_count())

    def side_stream(self) -> Any:
        return self.torch.cuda.stream(self.torch.cuda.Stream())

    def late(self, host: Any) -> Any:
        """An array whose contents come after a long kernel of the current stream."""
        source = self.array(host)
        self.torch.cuda.synchronize()
        result = self.torch.full_like(source, float("nan"))
        self.torch.cuda._sleep(SPIN)
        return result.copy_(source)

    def wait(self) -> None:
        self.torch.cuda.synchronize()


class CuPy:
    """CuPy's arrays; it has no bfloat16 of its own."""

    def __init__(self) -> None:
        self.cupy = imported("cupy")
        try:
            self.cupy.cuda.runtime.getDeviceCount()
        except self.cupy.cuda.runtime.CUDARuntimeError as error:
            raise Skipped(f"cupy sees no CUDA device: {error}") from None
        self.spin = self.cupy.RawKernel(
            'extern "C" __global__ void spin(long long cycles) {'
            " const long long end = clock64() + cycles; while (clock64() < end) {} }",
            "spin",
        )

    def array(self, host: Any, device: int = 0) -> Any:
        with self.cupy.cuda.Device(device):
            return self.cupy.asarray(host)

    def host(self, x: Any) -> Any:
        return np.ascontiguousarray(self.cupy.asnumpy(x)).view(np.uint8)

    def is_ours(self, x: Any, device: int = 0) -> bool:
        return isinstance(x, self.cupy.ndarray) and x.device.id == device

    def num_devices(self) -> int:
        return int(self.cupy.cuda.runtime.getDeviceCount())

    def side_stream(self) -> Any:
        return self.cupy.cuda.Stream(non_blocking=True)

    def late(self, host: Any) -> Any:
        source = self.array(host)
        self.wait()
        result = self.cupy.full_like(source, float("nan"))
        self.spin((1,), (1,), (SPIN,))
        result[...] = source
        return result

    def wait(self) -> None:
        self.cupy.cuda.runtime.deviceSynchronize()


class Jax:
    """JAX's arrays, which have no streams: what is computed from them is ready when it is read."""

    def __init__(self) -> None:
        self.jax = imported("jax")
        try:
            self.devices = self.jax.devices("cuda")
        except RuntimeError as error:
            raise Skipped(f"jax sees no CUDA device: {error}") from None
        self.busy = self.jax.jit(self.after_products)

    def array(self, host: Any, device: int = 0) -> Any:
        return self.jax.device_put(host, self.devices[device])

    def host(self, x: Any) -> Any:
        # What is no array of JAX is ours, with DLPack alone.
        return np.ascontiguousarray(self.jax.numpy.from_dlpack(x)).view(np.uint8)

    def is_ours(self, x: Any, device: int = 0) -> bool:
        return bool(isinstance(x, self.jax.Array) and x.devices() == {self.devices[device]})

    def num_devices(self) -> int:
        return len(self.devices)

    def side_stream(self) -> Any:
        return contextlib.nullcontext()

    def late(self, host: Any) -> Any:
        jnp = self.jax.numpy
        source, big = self.array(host), jnp.full((8192, 8192), 0.01, jnp.float32)
        self.jax.block_until_ready(self.busy(source, big))  # compiled; the next is only queued
        return self.busy(source, big)

    def after_products(self, x: Any, big: Any) -> Any:
        """`x`, after what takes tenths of a second."""
        for _ in range(20):
            big = self.jax.numpy.tanh(big @ big)
        return x + 0 * big[0, 0].astype(x.dtype)

    def wait(self) -> None:
        pass


class Emulated:
    """The emulator's memory, of a library that nobody knows; nothing in it is ever late."""

    def __init__(self) -> None:
        sys.path.insert(0, str(ROOT / "tests" / "cuda"))
        self.module = importlib.import_module("device_array")

    def array(self, host: Any, device: int = 0) -> Any:
        return self.module.DeviceArray(host, device)

    def host(self, x: Any) -> Any:
        return self.module.to_numpy(x, np.float32).view(np.uint8)

    def is_ours(self, x: Any, device: int = 0) -> bool:
        return bool(x.__dlpack_device__() == (2, device))

    def num_devices(self) -> int:
        return 2

    def side_stream(self) -> Any:
        return contextlib.nullcontext()

    def late(self, host: Any) -> Any:
        return self.array(host)

    def wait(self) -> None:
        pass


LIBRARIES = {"torch": Torch, "cupy": CuPy, "jax": Jax}
