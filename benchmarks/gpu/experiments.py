"""What do the open choices of a Hopper kernel gain? Contenders of experiments.cu, in turn."""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from . import common, programs

# Heads, seqlen and runs: 16384 tokens of width 2048 at head_dim 64 and 128, as others publish; and
# what the emulator does in a second.
SIZES = {"d128": ("32", "8192", "30"), "d64": ("64", "8192", "30"), "dq": ("32", "8192", "30")}
EMULATED = ("1", "200", "1")


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.experiments``."""
    chosen = common.parser(__doc__, limit=60).parse_args(arguments)
    record = common.Record("experiments", chosen)
    if programs.capability(chosen.backend) != "9.0":
        record.add("all", {"status": "skipped", "output": "compiled for sm_90a alone"})
        return record.leave()
    with tempfile.TemporaryDirectory() as folder:
        try:
            program, names = programs.ready("experiments.cu", chosen, folder, "90a")
        except RuntimeError as error:
            record.add("experiments.cu", {"status": "failed", "output": str(error)})
            return record.leave()
        cases = {}
        for name in names:
            real = next(sizes for key, sizes in SIZES.items() if key in name)
            cases[name] = [name, *(real if chosen.backend == "cuda" else EMULATED)]

        def run(_: str, case: list[str], limit: float) -> list[dict[str, Any]]:
            return programs.run(program, case, limit)

        common.run_all(common.select(cases, chosen), chosen, record, [run])
    return record.leave()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
