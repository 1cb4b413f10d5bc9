"""Do single instructions do on this device what the kernels believe? Compiled and run here."""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from . import common, programs


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.probes``."""
    chosen = common.parser(__doc__).parse_args(arguments)
    sources = {"probes.cu": "native"}
    if programs.capability(chosen.backend) == "9.0":
        sources["probes_sm90.cu"] = "90a"
    else:
        print("the device is not of sm_90: the instructions of sm_90a are left out")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for source, arch in sources.items():
            program = programs.build(source, chosen.backend, folder, arch)
            cases = {name: (program, name) for name in programs.names(program)}
            rows += common.run_all(
                common.select(cases, chosen), chosen,
                lambda _, case: programs.run(case[0], [case[1]], chosen.limit),
            )  # fmt: skip
    return common.leave("probes", chosen, rows)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
