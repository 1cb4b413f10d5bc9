"""Do the tests of the CUDA kernels pass on a device too? Those of tests/cuda, in many processes."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from . import common
from .worker import LONGEST, Row, Skipped

# The others ask how the emulator fails, or what a compiler makes of the kernels.
FILES = [f"tests/cuda/test_cuda_{name}.py" for name in ("grid", "passes", "precision", "tiles")]

# Plug-ins of pytest that happen to be installed, and warnings of other versions of other libraries,
# say nothing of a device.
PYTEST = [
    "-q",
    "--no-header",
    "-s",
    "-p",
    "no:cacheprovider",
    "-o",
    "filterwarnings=default",
    *FILES,
]


class Loop:
    """In place of pytest's own loop: runs the tests that it is asked for, or only lists them."""

    def __init__(self, serve: Callable[[Callable[[str], Row]], None] | None = None):
        self.serve, self.items = serve, {}

    def pytest_runtestloop(self, session: Any) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        if self.serve:
            self.serve(self.run)
        return True

    def run(self, name: str) -> Row:
        """A test by its identifier; raises what it raised, in words."""
        reports = runtestprotocol(self.items[name], nextitem=None, log=False)
        for report in reports:
            if report.skipped:
                raise Skipped(str(report.longrepr[-1])[-LONGEST:])
            if report.failed:
                text = report.longreprtext
                # Other errors may come from a device that is lost, and with it this process.
                is_wrong = "\nE   AssertionError" in text or "\nE       AssertionError" in text
                raise (AssertionError if is_wrong else RuntimeError)(text[-LONGEST:])
        return {}


def around(backend: str, serve: Callable[[Callable[[str], Row]], None]) -> None:
    """What a process of `worker` does: a session of pytest, whose tests come by name."""
    os.environ |= {"ATTNEXT_TEST_BACKEND": backend, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    pytest.main(PYTEST, plugins=[Loop(serve)])


def names() -> list[str]:
    """The identifiers of all tests, in an order that spreads what a spent budget leaves out."""
    loop = Loop()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.chdir(common.ROOT)
    pytest.main(PYTEST, plugins=[loop])
    found = sorted(loop.items)
    random.Random(0).shuffle(found)
    return found


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.suite``."""
    jobs = min(14, os.cpu_count() or 1)
    chosen = common.parser(__doc__, limit=30, jobs=jobs).parse_args(arguments)
    cases = common.select({name: name for name in names()}, chosen)
    return common.run_in_workers("benchmarks.gpu.suite", cases, chosen, only_bad=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
