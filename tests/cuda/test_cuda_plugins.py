"""What is said where a plug-in cannot be used? Which file is missing, and no cure that is none."""

import shutil
from pathlib import Path

import pytest

import native_build
from attnext import _core

CUDA, EMULATED = 2, 3  # attnext_backend
FILES = {CUDA: "libattnext_cuda.so", EMULATED: "libattnext_cuda_emulated.so"}

STATUS = """
import ctypes
library, text = ctypes.CDLL({path!r}), ctypes.create_string_buffer(2000)
capacity, size = ctypes.c_size_t(len(text)), ctypes.c_size_t()
library.attnext_backend_status({backend}, text, capacity, ctypes.byref(size))
print(text.value.decode())
"""


@pytest.fixture
def alone(tmp_path):
    """The installed libattnext in a folder of its own, without the plug-ins beside it."""
    installed = next((Path(_core.__file__).parent / "lib").glob("libattnext.so*"))
    return Path(shutil.copy(installed, tmp_path))


def said_of(backend, library, run_python):
    return run_python(STATUS.format(path=str(library), backend=backend)).strip()


def test_one_that_the_build_made_is_missing(alone, run_python, emulated):
    said = said_of(EMULATED, alone, run_python)
    assert said.endswith(f"but {alone.parent / FILES[EMULATED]} is missing; install attnext again")


def test_one_that_the_build_did_not_make(alone, run_python):
    said = said_of(CUDA, alone, run_python)
    if "left out of this build" not in said:
        pytest.skip("the build has CUDA")
    assert "missing" not in said
    assert "to have it" in said


def test_what_one_needs_is_missing(alone, run_python, tmp_path):
    """The loader says "No such file" of that too: it must not be taken for the plug-in."""
    compiler, source = native_build.tool("g++"), tmp_path / "empty.cpp"
    source.touch()
    needed = tmp_path / "libneeded.so"
    native_build.run(compiler, "-shared", "-fPIC", source, "-o", needed, "-Wl,-soname,libneeded.so")
    plugin = alone.parent / FILES[CUDA]
    native_build.run(
        compiler, "-shared", "-fPIC", source, "-o", plugin, "-Wl,--no-as-needed", needed
    )
    needed.unlink()
    said = said_of(CUDA, alone, run_python)
    assert "it cannot be loaded: libneeded.so: " in said


def test_a_device_that_is_too_old(emulated, run_python):
    """Nothing can be built for it: that is no cure."""
    body = (
        "import numpy as np, attnext\nq = np.ones((1, 1, 2, 4), np.float32)\n"
        "try:\n    attnext.attention(q, q, q, backend='cuda-emulated')\n"
        "except RuntimeError as error:\n    print(error)"
    )
    said = run_python(body, ATTNEXT_EMULATOR_ARCH="70").strip()
    expected = "device 0 has compute capability 7.0: too old, kernels are for 7.5 and later"
    assert said == f"attention: {expected}"
