"""What do all tests share? The instruction sets of this machine, and repeatable hypothesis."""

import os

import pytest
from hypothesis import HealthCheck, settings

from processes import run_python, supported_isas

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


@pytest.fixture(name="run_python")
def _run_python():
    return run_python


def pytest_generate_tests(metafunc):
    if "isa" in metafunc.fixturenames:
        metafunc.parametrize("isa", supported_isas())
