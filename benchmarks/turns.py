"""How do libraries take turns? Each lives in a process that is stopped while others are timed.

In one process, the threads of a library that has just answered keep spinning for milliseconds, in
case of another call, and hold the cores the next library is timed on: on two cores a call of 3 ms
then takes 6. A stopped process holds none. Rounds go A B C, B C A, ..., so that what slows the
machine down slows all, and nobody is always the one after the slowest.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = Path(__file__).with_name("worker.py")
# A library that does not answer an order in this time cannot run the case.
LONGEST_ANSWER = 120.0
# A library that took so many seconds over a case, and has two samples, takes no further turns.
ENOUGH = 2.0


class WorkerDiedError(RuntimeError):
    """A library's process ended, or did not answer in time."""


class MissingLibraryError(RuntimeError):
    """A library is not installed."""


class Library:
    """A library in a process of its own, which runs only while it answers."""

    def __init__(self, name, threads):
        self.name = name
        self._threads = threads
        self._process = None
        self._start()

    def _start(self):
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM, self.name, str(self._threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        greeting = self._answer()
        if "missing" in greeting:
            self.close()
            raise MissingLibraryError(greeting["missing"])
        self.version = greeting["version"]
        os.kill(self._process.pid, signal.SIGSTOP)

    def ask(self, order, **arguments):
        """What the process answers to an order."""
        os.kill(self._process.pid, signal.SIGCONT)
        try:
            line = json.dumps([order, arguments]) + "\n"
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
            answer = self._answer()
        except (BrokenPipeError, WorkerDiedError) as error:
            self.close()
            self._start()
            raise WorkerDiedError(f"failed: {error}") from error
        os.kill(self._process.pid, signal.SIGSTOP)
        return answer

    def _answer(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(LONGEST_ANSWER):
                raise WorkerDiedError(f"no answer in {LONGEST_ANSWER:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise WorkerDiedError(f"its process ended with code {self._process.wait()}")
        return json.loads(line)

    def close(self):
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def start(names, threads):
    """The libraries that are installed, by name."""
    libraries = {}
    for name in names:
        try:
            libraries[name] = Library(name, threads)
        except MissingLibraryError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
    if not libraries:
        raise SystemExit("none of the libraries is installed")
    return libraries


def time_case(case, libraries, rounds):
    """One row for each library: best, median and number of samples, or why it cannot run it."""
    rows = {name: {"case": case.name, "library": name, "why_not": None} for name in libraries}
    samples, spent = {}, {}
    for name, library in libraries.items():
        try:
            first = library.ask("prepare", case=case.name)
        except WorkerDiedError as error:
            first = {"why_not": str(error)}
        rows[name]["why_not"] = first["why_not"]
        if first["why_not"] is None:
            # A first sample is one of a process that has just been busy: good enough for long ones.
            samples[name] = [first["seconds"]] if first["seconds"] > ENOUGH / 4 else []
            spent[name] = first["seconds"]
    order = list(samples)
    for turn in range(rounds):
        for name in order[turn % len(order) :] + order[: turn % len(order)] if order else ():
            if spent[name] > ENOUGH and len(samples[name]) >= 2:
                continue
            begin = time.perf_counter()
            samples[name].append(libraries[name].ask("sample")["seconds"])
            spent[name] += time.perf_counter() - begin
    for name, seconds in samples.items():
        ordered = sorted(seconds)
        rows[name] |= {
            "best": ordered[0],
            "median": ordered[len(ordered) // 2],
            "samples": len(ordered),
        }
    work = {"flops": case.flops(), "bytes": case.bytes(), "dtype": case.dtype, "plain": case.plain}
    return [row | work for row in rows.values()]
