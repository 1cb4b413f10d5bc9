"""What do the tests of the CUDA back end share? Its kernels on the CPU, if the build has them."""

import pytest

import attnext

EMULATED = {backend.name: backend for backend in attnext.backends()}.get("cuda-emulated")


@pytest.fixture
def emulated():
    """The name of the back end; skips where the build has none."""
    if EMULATED is None:
        pytest.skip("the build has no emulator: ATTNEXT_CUDA_EMULATED=ON pip install .")
    return "cuda-emulated"


@pytest.fixture
def fast():
    """Float32 by three products of tf32, where there are kernels for it."""
    attnext.set_float32_precision("fast")
    yield
    attnext.set_float32_precision("exact")
