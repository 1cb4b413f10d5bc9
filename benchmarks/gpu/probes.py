"""Do single instructions do on this device what the kernels believe? Compiled and run here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import common

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_suffix(".cu")


def command(backend: str, program: Path) -> list[str]:
    """How the probes are compiled: for the device here, or over the emulator."""
    folders = [ROOT / "cuda", ROOT / "cpp", ROOT / "cpp" / "include"]
    if backend == "cuda":
        compiler = ["nvcc", "-arch=native", "--expt-relaxed-constexpr", str(SOURCE)]
    else:
        folders.insert(0, ROOT / "tests" / "emulator")
        sources = [
            str(path) for part in ("core", "runtime") for path in folders[0].glob(f"{part}/*.cpp")
        ]
        compiler = ["g++", "-pthread", "-Wno-psabi", *sources, "-x", "c++", str(SOURCE)]
    includes = [f"-I{folder}" for folder in folders]
    return [compiler[0], "-std=c++20", "-O2", *includes, "-o", str(program), *compiler[1:]]


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.probes``."""
    chosen = common.parser(__doc__).parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "probes"
        build = command(chosen.backend, program)
        if shutil.which(build[0]) is None:
            print(f"{build[0]} is not installed")
            return 1
        subprocess.run(build, check=True)
        done = subprocess.run(
            [program], capture_output=True, text=True, check=False, timeout=chosen.budget
        )
    rows: list[dict[str, Any]] = []
    for line in done.stdout.splitlines():
        facts = json.loads(line)
        rows.append({"case": facts.pop("probe"), **facts})
    if done.returncode != 0 and all(row["status"] == "ok" for row in rows):
        rows.append({"case": "the program", "status": "failed", "output": done.stderr[-800:]})
    return common.leave("probes", chosen, rows)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
