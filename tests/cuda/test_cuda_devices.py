"""Do other devices, and other orders of threads, get the grid right? In processes of their own.

The grid's own process emulates sm_90 under the emulator's first seed.
"""

import pytest

from processes import TESTS, run_tests

EXPLAIN = """
import numpy as np, attnext
q = np.ones((1, 2, 40, 128), np.float16)
facts = attnext.explain(q, q, q, backend="cuda-emulated")
print(facts["compute_capability"], facts["path"], facts["instruction"], facts["tile_k"])
"""

# Device, seed, and which of the grid's core cases run there.
RUNS = {
    # Tiles and instructions of its own, and no copies that travel by themselves.
    "float16_on_sm_75": ("75", "2", "float16 and not bfloat16"),
    # A block has 99 KB here, the least of all from sm_80 on.
    "widest_on_sm_86": ("86", "3", "(head_dim_128 or head_dim_256) and float16"),
    "matrix_units_in_another_order": ("90", "2", "bfloat16"),
    "multiply_adds_in_another_order": ("90", "3", "float32"),
}


@pytest.mark.parametrize(
    ("arch", "found"), [("75", "7.5 mma m16n8k8 64"), ("86", "8.6 mma m16n8k16 48")]
)
def test_which_kernels_a_device_takes(arch, found, emulated, run_python):
    assert run_python(EXPLAIN, ATTNEXT_EMULATOR_ARCH=arch).strip() == found


@pytest.mark.parametrize("run", RUNS)
def test_core_cases(run, emulated):
    arch, seed, names = RUNS[run]
    where = {"ATTNEXT_EMULATOR_ARCH": arch, "ATTNEXT_EMULATOR_SEED": seed}
    grid = TESTS / "cuda" / "test_cuda_grid.py"
    assert run_tests("-m", "core", "-k", names, grid, **where) > 0
