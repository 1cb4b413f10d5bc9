"""How are the probes compiled and run? By nvcc for this device, or over the emulator."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
EMULATOR = ROOT / "tests" / "emulator"


def end_session(process: subprocess.Popen[Any]) -> None:
    """Kills a process that leads a session, and those it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def capability(backend: str) -> str:
    """Compute capability of the first device, as "9.0", the emulator's; empty if unknown."""
    if backend != "cuda":
        return "9.0"
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        import attnext

        reasons = [back.reason for back in attnext.backends() if back.name == "cuda"]
        told = re.search(r"compute capability (\d+\.\d+)", " ".join(reasons))
        return told[1] if told else ""
    return done.stdout.split()[0]


def compile_command(source: str, backend: str, program: Path, arch: str = "native") -> list[str]:
    """How `source`, beside this file, becomes `program`; `arch` as "90a", or this machine's."""
    folders = [ROOT / "cuda", ROOT / "cpp", ROOT / "cpp" / "include"]
    if backend == "cuda":
        target = (
            "-arch=native" if arch == "native" else f"-gencode=arch=compute_{arch},code=sm_{arch}"
        )
        # A spill, or products that wait for one another, would make the numbers meaningless.
        checks = ["-Xptxas=-warn-spills,-Werror"]
        rest = ["nvcc", "-O3", target, *checks, "--expt-relaxed-constexpr", str(HERE / source)]
    else:
        folders.insert(0, EMULATOR)
        sources = [
            str(path) for part in ("core", "runtime") for path in EMULATOR.glob(f"{part}/*.cpp")
        ]
        rest = ["g++", "-O2", "-pthread", "-Wno-psabi", "-Wno-unknown-pragmas", *sources]
        rest += ["-x", "c++", str(HERE / source)]
    includes = [f"-I{folder}" for folder in folders]
    return [rest[0], "-std=c++20", *includes, "-o", str(program), *rest[1:]]


def build(source: str, backend: str, folder: Path, arch: str = "native") -> Path:
    """Compile into `folder`; raises with the compiler's words."""
    program = folder / Path(source).stem
    command = compile_command(source, backend, program, arch)
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or "C75" in done.stderr:
        raise RuntimeError(f"{source} does not compile as it should:\n{done.stderr[-3000:]}")
    return program


def ready(
    source: str, chosen: argparse.Namespace, folder: str, arch: str = "native"
) -> tuple[Path, list[str]]:
    """A program and what it can run: one compiled before if that starts here, else compiled now."""
    if chosen.programs:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            program = chosen.programs.resolve() / Path(source).stem
            return program, names(program)
    program = build(source, chosen.backend, Path(folder), arch)
    return program, names(program)


def names(program: Path) -> list[str]:
    """What a program can run."""
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def run(program: Path, arguments: list[str], limit: float) -> list[dict[str, Any]]:
    """The rows it printed, from a process of its own: a hang costs `limit` seconds."""
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return [{"status": "hung", "seconds": limit}]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 and all(row["status"] == "ok" for row in rows):
        tail = (done.stderr or done.stdout).strip()[-800:]
        rows.append({"status": "failed", "returncode": done.returncode, "output": tail})
    return rows
