"""What do the drivers share? Arguments, the order of the cases, running them, the record."""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import queue
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attnext

from .programs import ROOT, end_session

RESULTS = ROOT / "benchmarks" / "results"
SPENT = "not run: the budget was spent"
WRITE_EVERY = 0.2  # seconds: thousands of rows are not written thousands of times in full

Row = dict[str, Any]


def parser(description: str | None, limit: float = 20, jobs: int = 1) -> argparse.ArgumentParser:
    """The arguments that every driver has."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--backend", default="cuda", choices=("cuda", "cuda-emulated"))
    result.add_argument("--budget", type=float, default=540, help="seconds for the whole run")
    result.add_argument("--limit", type=float, default=limit, help="seconds for a case")
    result.add_argument("--jobs", type=int, default=jobs, help="processes at a time")
    result.add_argument("--only", default="", help="cases whose name contains this")
    result.add_argument("--quick", action="store_true", help="a few small cases")
    result.add_argument("--output", type=Path, default=RESULTS, help="folder of the record")
    result.add_argument("--programs", type=Path, help="folder of programs compiled before")
    return result


def environment(backend: str) -> Row:
    """The machine and the versions: a number without them says nothing."""
    facts = {b.name: b.reason for b in attnext.backends()}
    result = {
        "attnext": attnext.__version__, "backend": backend, "device": facts.get(backend, "absent"),
        "python": platform.python_version(), "platform": platform.platform(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip
    query = "name,driver_version,clocks.max.sm,power.limit"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
            capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
        result["nvidia-smi"] = done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        result["nvidia-smi"] = f"not there: {error}"
    return result


def select(cases: dict[str, Any], chosen: argparse.Namespace, quick: int = 4) -> dict[str, Any]:
    """The cases asked for by --only and --quick."""
    named = {name: case for name, case in cases.items() if chosen.only in name}
    return dict(list(named.items())[:quick]) if chosen.quick else named


def spread(cases: dict[str, Row], count: int) -> dict[str, Row]:
    """At most `count` of them, each the one whose pairs of values were seen least before it.

    So that a budget that cuts the list leaves no value, and no two together, untried.
    """
    rng, seen, chosen = random.Random(0), Counter(), {}
    left = dict(cases)

    def pairs(case: Row) -> list[Any]:
        return list(itertools.combinations(case.items(), 2))

    while left and len(chosen) < count:
        candidates = rng.sample(list(left), min(60, len(left)))
        name = min(candidates, key=lambda name: sum(seen[pair] for pair in pairs(left[name])))
        chosen[name] = left.pop(name)
        seen.update(pairs(chosen[name]))
    return chosen


class Record:
    """The dated JSON of a run, complete on disk after each row, and a table at the end."""

    def __init__(self, name: str, chosen: argparse.Namespace):
        self.name, self.output, self.rows = name, chosen.output, []
        self.stem = f"gpu-{name}-{datetime.date.today().isoformat()}"
        self.environment, self.lock, self.written = (
            environment(chosen.backend),
            threading.Lock(),
            0.0,
        )
        self.output.mkdir(parents=True, exist_ok=True)

    def add(self, case: str, row: Row) -> None:
        """A result, from any thread; it is printed unless all is well."""
        with self.lock:
            self.rows.append({"case": case, **row})
            print(json.dumps(self.rows[-1]), flush=True)
            if time.monotonic() - self.written > WRITE_EVERY:
                self._write()

    def _write(self) -> None:
        record = {"driver": self.name, "environment": self.environment, "rows": self.rows}
        partial = self.output / f".{self.stem}.json"
        partial.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(partial, self.output / f"{self.stem}.json")
        self.written = time.monotonic()

    def leave(self, only_bad: bool = False) -> int:
        """Write all of it and a table; the exit status says whether every case went well."""
        bad = [row for row in self.rows if row["status"] not in ("ok", "skipped")]
        counts = Counter(row["status"].partition(":")[0] for row in self.rows)
        summary = ", ".join(f"{count} {status}" for status, count in counts.most_common())
        with self.lock:
            self._write()
        (self.output / f"{self.stem}.md").write_text(table(bad if only_bad else self.rows, summary))
        print(f"{self.name}: {summary or 'nothing ran'}; {self.output / self.stem}.json, .md")
        return 1 if bad or not self.rows else 0


def table(rows: list[Row], summary: str) -> str:
    """The rows as Markdown, long words left to the JSON."""
    columns = list(dict.fromkeys(["case", *(key for row in rows for key in row)]))
    columns = [key for key in columns if key != "output"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(key, "")) for key in columns) + " |" for row in rows]
    return "\n".join([*lines, "", summary]) + "\n"


def run_all(
    cases: dict[str, Any], chosen: argparse.Namespace, record: Record,
    runners: list[Callable[[str, Any, float], Any]],
) -> None:  # fmt: skip
    """A row of `record`, or several, for each case, by as many threads as there are runners.

    A runner takes a name, a case and the seconds it may take, and returns a row or a list of them.
    What the budget leaves no time for is said.
    """
    end, waiting = time.monotonic() + chosen.budget, queue.SimpleQueue()
    for item in cases.items():
        waiting.put(item)
    running: dict[str, None] = {}

    def work(run: Callable[[str, Any, float], Any]) -> None:
        while True:
            try:
                name, case = waiting.get_nowait()
            except queue.Empty:
                return
            running[name] = None
            for row in attempt(run, name, case, chosen.limit, end):
                record.add(name, row)
            running.pop(name)

    threads = [threading.Thread(target=work, args=(run,), daemon=True) for run in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        # A process whose kernel never ends can outlive its kill: it is not waited for.
        thread.join(max(0.0, end + 10 - time.monotonic()))
    for name in list(running):
        record.add(name, {"status": "hung", "output": "its process could not be ended"})


def attempt(run: Any, name: str, case: Any, limit: float, end: float) -> list[Row]:
    """The rows of a case, whatever happens to it; none of it lasts beyond `end`."""
    left = end - time.monotonic()
    if left <= 0:
        return [{"status": SPENT}]
    try:
        found = run(name, case, min(limit, left))
    except Exception as error:
        return [{"status": "failed", "output": f"{type(error).__name__}: {error}"}]
    if left < limit and isinstance(found, dict) and found["status"] == "hung":
        return [{"status": SPENT}]
    return found if isinstance(found, list) else [found]


def run_in_workers(
    module: str, cases: dict[str, Any], chosen: argparse.Namespace, only_bad: bool = False
) -> int:
    """The record of a driver whose cases are run by `worker`; returns the exit status."""
    from .worker import Worker

    cores = os.cpu_count() or 1
    jobs = max(1, min(chosen.jobs, len(cases)))
    workers = [Worker(module, chosen.backend, max(1, cores // jobs)) for _ in range(jobs)]
    record = Record(module.rpartition(".")[2], chosen)
    runners = [lambda name, case, limit, w=w: w.run(case, limit) for w in workers]
    run_all(cases, chosen, record, runners)
    status = record.leave(only_bad)
    for worker in workers:
        worker.stop()
    return status


def run_alone(command: list[str], limit: float, keep_output: bool = False) -> Row:
    """A program in a process of its own: how it ended, and what it printed if that was badly."""
    start = time.monotonic()
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            start_new_session=True,
        )  # fmt: skip
        said = "".join(process.communicate(timeout=limit)).strip()
    except subprocess.TimeoutExpired:
        end_session(process)
        return {"status": "hung", "output": f"no answer in {limit:.0f} s"}
    except OSError as error:
        return {"status": "failed", "output": str(error)}
    row: Row = {"status": "ok" if process.returncode == 0 else "failed"}
    if keep_output:
        row["output"] = said
    elif process.returncode != 0:
        row |= {"returncode": process.returncode, "output": said[-1500:]}
    return {**row, "seconds": round(time.monotonic() - start, 2)}


def python(*arguments: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", *arguments]
