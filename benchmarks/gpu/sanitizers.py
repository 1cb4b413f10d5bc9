"""Does compute-sanitizer find anything? Each of its tools over small problems of every pass."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

from . import common
from .correctness import name_of

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")

# Every option once, among them those whose gradients are sums over all rows; both kinds of kernel.
PROBLEMS = [
    {"seqlen": seqlen, "dim": dim, "causal": True, "group": 2, "dtype": dtype, "options": options}
    for seqlen, dim, dtype, options in (
        (65, 64, "float16", "everything"), (129, 128, "bfloat16", "plain"),
        (65, 80, "float32", "everything"), (40, 256, "bfloat16", "bias-heads"),
        (65, 64, "float32-fast", "sinks"), (300, 64, "float16", "decode"),
        (65, 64, "float64", "packed"),
    )
]  # fmt: skip
REFUSALS = ("Device not supported", "not supported on this", "LibraryNotLoaded")


def sanitized(tool: str, problem: dict[str, Any], backend: str, limit: float) -> dict[str, Any]:
    """A problem by correctness.py in a process of its own, under a tool where there is a device."""
    # The emulator has checks of its own: there the problems alone are run.
    prefix = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
    command = common.python(
        "benchmarks.gpu.correctness", "--backend", backend, "--case", json.dumps(problem)
    )
    row = common.run_alone((prefix if backend == "cuda" else []) + command, limit)
    if any(words in row.get("output", "") for words in REFUSALS):
        return {**row, "status": "skipped", "why": "compute-sanitizer refuses this machine"}
    return row


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.sanitizers``."""
    chosen = common.parser(__doc__, limit=90, jobs=4).parse_args(arguments)
    cases = common.select(
        {f"{tool}-{name_of(problem)}": (tool, problem) for tool in TOOLS for problem in PROBLEMS},
        chosen,
    )  # fmt: skip
    record = common.Record("sanitizers", chosen)
    if chosen.backend == "cuda" and shutil.which("compute-sanitizer") is None:
        record.add("all", {"status": "skipped", "why": "compute-sanitizer is not installed"})
        return record.leave()

    def run(_: str, case: Any, limit: float) -> dict[str, Any]:
        tool, problem = case
        return sanitized(tool, problem, chosen.backend, limit)

    common.run_all(cases, chosen, record, [run] * chosen.jobs)
    return record.leave()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
