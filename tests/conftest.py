"""What do all tests share? The instruction sets of this machine, and repeatable hypothesis."""

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "attnext", deadline=None, derandomize=True, max_examples=60, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
settings.register_profile(
    "long", parent=settings.get_profile("attnext"), derandomize=False, max_examples=2000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "attnext"))


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "core: also run once for each instruction set of the machine"
    )


def run_python(code, **environment):
    """Runs code in a process of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(name="run_python")
def _run_python():
    return run_python


def supported_isas():
    """The instruction sets of this build that this machine can run, best first."""
    from attnext import _core

    return [name for name, is_supported in _core.isas() if is_supported]


def pytest_generate_tests(metafunc):
    if "isa" in metafunc.fixturenames:
        metafunc.parametrize("isa", supported_isas())
