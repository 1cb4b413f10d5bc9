"""Which back ends are there, why is one missing, and where are the files for embedders?"""

from __future__ import annotations

import os
from typing import NamedTuple

from . import _core

__all__ = ["Backend", "backends", "get_cmake_dir", "get_include"]


class Backend(NamedTuple):
    """A back end by the name that `attention` knows it by."""

    name: str
    available: bool
    reason: str


def backends() -> list[Backend]:
    """The back ends, whether they can run here, and why.

    Returns
    -------
    list of Backend
        (name, available, reason) for "cpu", "cuda" and "reference", and for "cuda-emulated" where
        the build has it. Asking loads the CUDA plug-in if there is one.

    Examples
    --------
    >>> import attnext
    >>> [backend.name for backend in attnext.backends()][:2]
    ['cpu', 'cuda']
    """
    emulated = Backend("cuda-emulated", *_core.backend_status("cuda-emulated"))
    return [
        *(Backend(name, *_core.backend_status(name)) for name in ("cpu", "cuda")),
        *([emulated] if emulated.available else []),
        Backend("reference", True, "plain NumPy in float64, on request only"),
    ]


def get_include() -> str:
    """The directory to include from: ``#include <attnext/attnext.h>``."""
    return os.path.join(_install_dir(), "include")


def get_cmake_dir() -> str:
    """What to pass as ``attnext_DIR``, so that CMake's ``find_package(attnext)`` works."""
    return os.path.join(_install_dir(), "lib", "cmake", "attnext")


def _install_dir() -> str:
    # An editable install leaves the Python files elsewhere: what was built lies by the extension.
    return os.path.dirname(os.path.abspath(_core.__file__))
