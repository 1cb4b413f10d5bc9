"""What are the kernels waiting for? Nsight Compute over one pass of two shapes."""

from __future__ import annotations

import csv
import shutil
import sys
from typing import Any

from . import common
from .timing import grid, profiled_call

# The two shapes that others publish most, forward and backward.
SHAPES = ("d128-s8192-causal", "d64-s8192-causal")
SECTIONS = (
    "SpeedOfLight", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis", "WarpStateStats",
    "Occupancy", "LaunchStats",
)  # fmt: skip
REFUSALS = ("LibraryNotLoaded", "ERR_NVGPUCTRPERM", "Failed to initialize the profiler")


def command(case: str) -> list[str]:
    """ncu over a call, at the clocks as they are; what warms the device up is not profiled."""
    sections = [word for section in SECTIONS for word in ("--section", section)]
    # The kernels of attnext are in its namespace; those of torch that draw the inputs are not.
    return [
        "ncu", "--csv", "--page", "details", "--clock-control", "none", "--target-processes", "all",
        *sections, "--kernel-name-base", "demangled", "--kernel-name", "regex:.*attnext.*",
        *common.python("benchmarks.gpu.profile", "--case", case),
    ]  # fmt: skip


def rows_of(text: str) -> list[dict[str, Any]]:
    """A row for each kernel launch, its metrics by name with their units."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    kernels: dict[str, dict[str, Any]] = {}
    for line in csv.DictReader(lines[start:]):
        name = line["Kernel Name"]
        row = kernels.setdefault(line["ID"], {"status": "ok", "kernel": name[:200]})
        if line.get("Metric Name"):
            unit = f" ({line['Metric Unit']})" if line["Metric Unit"] else ""
            row[f"{line['Metric Name']}{unit}"] = line["Metric Value"]
    return list(kernels.values())


def profiled(_: str, case: str, limit: float) -> list[dict[str, Any]]:
    """The kernels of a case, or how the profiler said no."""
    row = common.run_alone(command(case), limit, keep_output=True)
    text = row.pop("output", "")
    if any(words in text for words in REFUSALS):
        return [{"status": "skipped", "why": "ncu refuses this machine", "output": text[-800:]}]
    found = rows_of(text)
    if row["status"] == "ok" and found:
        return found
    return [{**row, "status": "failed", "output": text[-1500:]}, *found]


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.profile``."""
    own = common.parser(__doc__, limit=60)
    own.add_argument("--case", help="one call of a case of timing, in this process")
    chosen = own.parse_args(arguments)
    if chosen.case:
        profiled_call(grid()[chosen.case])
        return 0
    cases = {
        name: name
        for name in (f"{s}-{p}-bfloat16" for s in SHAPES for p in ("forward", "backward"))
    }
    record = common.Record("profile", chosen)
    if chosen.backend != "cuda" or shutil.which("ncu") is None:
        record.add("all", {"status": "skipped", "why": "there is no ncu, or no device for it"})
        return record.leave()
    common.run_all(common.select(cases, chosen), chosen, record, [profiled])
    return record.leave()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
