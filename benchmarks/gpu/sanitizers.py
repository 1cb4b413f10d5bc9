"""Does compute-sanitizer find anything? Each of its tools over small problems of every pass."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

from . import common

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
PROBLEMS = [
    {"seqlen": 65, "dim": 64, "causal": True, "group": 2, "dtype": "float16"},
    {"seqlen": 129, "dim": 128, "causal": False, "group": 1, "dtype": "bfloat16"},
    {"seqlen": 65, "dim": 80, "causal": True, "group": 1, "dtype": "float32"},
    {"seqlen": 40, "dim": 256, "causal": True, "group": 1, "dtype": "bfloat16"},
]


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.sanitizers``."""
    chosen = common.parser(__doc__).parse_args(arguments)
    is_real = chosen.backend == "cuda"
    if is_real and shutil.which("compute-sanitizer") is None:
        print("compute-sanitizer is not installed; it comes with the CUDA toolkit")
        return 1
    cases: dict[str, Any] = {
        f"{tool}-d{p['dim']}-s{p['seqlen']}-{p['dtype']}": (tool, p)
        for p in PROBLEMS for tool in TOOLS
    }  # fmt: skip

    def run(_: str, case: Any) -> dict[str, Any]:
        tool, problem = case
        # The emulator has checks of its own: there the problems alone are run.
        prefix = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "9") if is_real else ()
        return common.run_alone(
            "benchmarks.gpu.correctness",
            ["--backend", chosen.backend, "--case", json.dumps(problem)],
            max(chosen.limit, 60), prefix,
        )  # fmt: skip

    return common.leave("sanitizers", chosen, common.run_all(
        common.select(cases, chosen), chosen, run
    ))  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
