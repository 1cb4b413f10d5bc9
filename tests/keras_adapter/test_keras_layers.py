"""Are attnext's layers Keras's, on every back end that is installed? Each in its own process."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

CHECKS = ("check_equality.py", "check_behaviour.py")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "jax", "torch", "tensorflow"])
def test_layers(backend):
    for package in ("keras", backend):  # importing Keras here would choose one back end for good
        if find_spec(package) is None:
            pytest.skip(f"could not import {package!r}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CHECKS],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


WITHOUT_KERAS = """
import sys
sys.modules["keras"] = None
import attnext
try:
    import attnext.keras
except ImportError as error:
    print(error)
"""


def test_missing_keras_is_asked_for_by_its_extra(run_python):
    assert run_python(WITHOUT_KERAS) == 'attnext.keras needs Keras: pip install "attnext[keras]"\n'


def test_attnext_does_not_import_keras(run_python):
    code = "import sys, attnext; print('keras' in sys.modules)"
    assert run_python(code) == "False\n"
