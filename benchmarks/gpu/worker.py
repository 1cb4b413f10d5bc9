"""How does a case get a time limit without a start of its own? A process that serves many.

A driver is a module with `run_case(backend, case)`, a row as a dict. What hangs is killed, and what
failed may have lost the device: the case after it gets a new process, as after a row with `ends`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from . import common
from .common import Row

START = (
    120.0  # seconds for imports; those of a framework take many when all processes start at once
)
LONGEST = 1500  # characters of what a failed case said


class Skipped(Exception):  # noqa: N818  (nothing went wrong)
    """A case that cannot be tried here, and why."""


def serve(run: Callable[[Any], Row], answers: Any) -> None:
    """Run what each line of the standard input describes, a line of answer each."""
    for line in sys.stdin:
        row, may_go_on = outcome(run, json.loads(line))
        answers.write(json.dumps(row) + "\n")
        answers.flush()
        if not may_go_on:
            break


def outcome(run: Callable[[Any], Row], case: Any) -> tuple[Row, bool]:
    """The row of a case, and whether the device can be trusted after it."""
    try:
        return {"status": "ok", **run(case)}, True
    except Skipped as reason:
        return {"status": "skipped", "output": str(reason)}, True
    except Exception as error:
        text = f"{type(error).__name__}: {error}"[-LONGEST:]
        return {"status": "failed", "output": text}, isinstance(error, AssertionError)


def main(module: str, backend: str) -> None:
    """What the process does; a driver may have an `around(backend, serve)` of its own."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    driver = importlib.import_module(module)

    def start(run: Callable[[Any], Row]) -> None:
        answers.write("{}\n")
        answers.flush()
        serve(run, answers)

    if hasattr(driver, "around"):
        driver.around(backend, start)
    else:
        start(lambda case: driver.run_case(backend, case))
    # What is queued on a broken device must not keep the interpreter from ending.
    os._exit(0)


class Worker:
    """The process of one driver, started when it is first needed and again after a failure."""

    def __init__(self, module: str, backend: str, num_threads: int):
        code = f"from benchmarks.gpu import worker; worker.main({module!r}, {backend!r})"
        self.command = [sys.executable, "-c", code]
        threads = dict.fromkeys(
            ("ATTNEXT_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(num_threads)
        )
        # JAX would take three quarters of the memory for itself, in each process.
        self.environment = {**os.environ, **threads, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.process: subprocess.Popen[str] | None = None

    def run(self, case: Any, limit: float) -> Row:
        """The row of a case; `limit` in seconds."""
        if self.process is None:
            self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (until `stop`)
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                text=True, cwd=common.ROOT, env=self.environment,
            )  # fmt: skip
            lost = self._answer(START)
            if lost:
                return lost
        start = time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # it ended by itself: the answer says so
            self.process.stdin.write(json.dumps(case) + "\n")
            self.process.stdin.flush()
        row = self._answer(limit)
        if row["status"] == "failed" or row.pop("ends", False):
            self.stop()
        return {**row, "seconds": round(time.monotonic() - start, 2)}

    def _answer(self, limit: float) -> Row:
        """The next line, or what became of the process instead."""
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            process.kill()

        process = self.process
        timer = threading.Timer(limit, end)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if line:
            return json.loads(line)
        returncode = process.wait()
        self.errors.seek(0)
        said = self.errors.read()[-LONGEST:]
        self.stop()
        if is_late.is_set():
            return {"status": "hung", "output": f"no answer in {limit:.0f} s"}
        return {"status": "failed", "output": f"the process ended with {returncode}: {said}"}

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self.process is None:
            return
        self.process.kill()
        # One whose kernel never ends may not die either.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self.process = None
