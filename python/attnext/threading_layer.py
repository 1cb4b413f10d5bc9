"""Whose threads does attnext's work run on: its own, or those of OpenMP that others use too?"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    from typing import Literal

    Layer = Literal["attnext", "openmp"]

__all__ = ["get_threading_layer", "set_threading_layer"]

LAYERS: tuple[Layer, ...] = ("attnext", "openmp")
# GCC's, Intel's and LLVM's, also as wheels rename them: libgomp-a34b3233.so.1
RUNTIMES = ("libgomp", "libiomp5", "libomp")


def set_threading_layer(layer: Layer) -> None:
    """Sets on whose threads later calls of the calling thread run.

    A library's threads stay awake for a while after they have worked, and other libraries' threads
    then have to share cores with them. Calls in turns with PyTorch's operators are up to twice as
    fast on PyTorch's threads. ``import attnext.torch`` chooses them, in the thread that imports it,
    unless ``ATTNEXT_THREADING_LAYER=attnext`` is set or there are none that can be shared.

    Parameters
    ----------
    layer : {"attnext", "openmp"}
        "attnext", the default: a pool of its own. "openmp": the threads of the OpenMP runtime that
        PyTorch has brought, or else of the first one in this process. The runtime decides how many
        there are (``torch.set_num_threads``); `set_num_threads` may leave some without work.
        Results are the same bits. A child process after ``fork`` is back at "attnext".

    Raises
    ------
    ValueError
        Another value.
    RuntimeError
        "openmp", where no OpenMP runtime is in this process whose threads can be shared.

    Examples
    --------
    >>> import attnext
    >>> attnext.set_threading_layer("attnext")
    >>> attnext.get_threading_layer()
    'attnext'
    """
    if layer not in LAYERS:
        raise ValueError(
            f"set_threading_layer: layer must be 'attnext' or 'openmp', found {layer!r}"
        )
    region = _parallel_region() if layer == "openmp" else 0
    if layer == "openmp" and not region:
        raise RuntimeError(
            "set_threading_layer: layer 'openmp' needs an OpenMP runtime in this process that has "
            "GOMP_parallel, found none; import the library whose threads are to be shared first"
        )
    _core.share_openmp(region)


def get_threading_layer() -> Layer:
    """On whose threads the calling thread's next call runs: "attnext" or "openmp"."""
    return LAYERS[_core.shares_openmp()]


def share_with_torch() -> None:
    """What ``import attnext.torch`` does."""
    if os.environ.get("ATTNEXT_THREADING_LAYER") != "attnext":
        _core.share_openmp(_parallel_region())


def _parallel_region() -> int:
    """Where GOMP_parallel of the runtime to share is; 0: nowhere."""
    for path in _libraries():
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
            address = ctypes.cast(library.GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
        if address:
            return address
    return 0


def _libraries() -> Iterator[Path]:
    torch = sys.modules.get("torch")
    if torch is not None and torch.__file__:
        yield (
            Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
        )  # finds the one it is bound to
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for path in dict.fromkeys(line.split(maxsplit=5)[-1] for line in maps.splitlines()):
        if Path(path).name.startswith(RUNTIMES):
            yield Path(path)
