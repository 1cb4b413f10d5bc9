"""Is every instruction set of the machine right, and is the forced one really used?"""

import json
import os
import subprocess
import sys

import pytest

from processes import TESTS, run_tests, supported_isas

RUNNING = """
import json, numpy, attnext
x = numpy.ones((1, 1, 4, 8), numpy.float32)
cpu = next(backend for backend in attnext.backends() if backend.name == "cpu")
print(json.dumps([attnext.explain(x, x, x)["isa"], cpu.reason.split()[0]]))
"""


def test_forced_isa_runs(isa, run_python):
    assert json.loads(run_python(RUNNING, ATTNEXT_ISA=isa)) == [isa, isa]


def test_core_cases(isa):
    files = [TESTS / name for name in ("test_forward.py", "test_backward.py")]
    assert run_tests("-m", "core", *files, ATTNEXT_ISA=isa) > 0


@pytest.mark.parametrize("name", ["mmx", "AVX2", "avx"])
def test_unknown_isa_is_an_error(name):
    code = "import numpy, attnext; x = numpy.ones((2, 3)); attnext.attention(x, x, x)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ATTNEXT_ISA": name},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "ATTNEXT_ISA" in last
    assert name in last
    assert all(isa in last for isa in supported_isas())
