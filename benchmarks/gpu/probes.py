"""Do single instructions do on this device what the kernels believe? Compiled and run here."""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from . import common, programs


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.probes``."""
    chosen = common.parser(__doc__).parse_args(arguments)
    record = common.Record("probes", chosen)
    sources = {"probes.cu": "native", "probes_sm90.cu": "90a"}
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for source, arch in sources.items():
            if arch == "90a" and programs.capability(chosen.backend) != "9.0":
                record.add(source, {"status": "skipped", "output": "the device is not of sm_90"})
                continue
            try:
                program, names = programs.ready(source, chosen, folder, arch)
            except RuntimeError as error:
                record.add(source, {"status": "failed", "output": str(error)})
                continue
            cases |= {name: (program, name) for name in names}

        def run(_: str, case: Any, limit: float) -> list[dict[str, Any]]:
            return programs.run(case[0], [case[1]], limit)

        common.run_all(common.select(cases, chosen), chosen, record, [run] * chosen.jobs)
    return record.leave()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
