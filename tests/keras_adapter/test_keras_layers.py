"""Are attnext's layers Keras's, on every back end that is installed? Each in its own process."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

CHECKS = ("check_equality.py", "check_behaviour.py")
OWN = ("attention_test", "additive_attention_test", "multi_head_attention_test")
BACKENDS = ("numpy", "jax", "torch", "tensorflow")


def run_pytest(backend, *arguments):
    """The output of a run in a process of its own, as importing Keras chooses one back end."""
    for package in ("keras", backend):
        if find_spec(package) is None:
            pytest.skip(f"could not import {package!r}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_layers(backend):
    assert " passed" in run_pytest(backend, *CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_keras_own_tests_pass(backend):
    """They come with its package; its configuration does not, and ours is not theirs."""
    modules = [f"keras.src.layers.attention.{name}" for name in OWN]
    options = ("-c", os.devnull, "-W", "ignore", "-p", "in_place_of_keras")
    assert " passed" in run_pytest(backend, *options, "--pyargs", *modules)


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
