"""What do the tests of the CUDA back end share? Its kernels on the CPU, if the build has them."""

import os

import pytest

import attnext

AVAILABLE = {backend.name for backend in attnext.backends() if backend.available}


@pytest.fixture
def emulated():
    """The name of the emulated back end; skips where the build has none."""
    if "cuda-emulated" not in AVAILABLE:
        pytest.skip("the build has no emulator: ATTNEXT_CUDA_EMULATED=ON pip install .")
    return "cuda-emulated"


@pytest.fixture
def backend(request):
    """The back end that ATTNEXT_TEST_BACKEND names, which must be there; else the emulated one."""
    chosen = os.environ.get("ATTNEXT_TEST_BACKEND", "cuda-emulated")
    if chosen == "cuda-emulated":
        return request.getfixturevalue("emulated")
    assert chosen in AVAILABLE, f"ATTNEXT_TEST_BACKEND={chosen}: it is not available"
    return chosen


@pytest.fixture
def fast():
    """Float32 by three products of tf32, where there are kernels for it."""
    attnext.set_float32_precision("fast")
    yield
    attnext.set_float32_precision("exact")
