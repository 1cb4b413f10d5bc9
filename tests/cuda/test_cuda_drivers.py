"""Do the drivers for a real GPU run at all? A case each, over the emulator."""

import json
import subprocess
import sys

import pytest

import native_build

# What is asked of each beside a quick run: the smallest case there is.
DRIVERS = [
    ("correctness", ["--only", "d64-s63-causal-gqa1-bfloat16"]),
    ("sanitizers", ["--only", "memcheck-d64"]),
    ("determinism", ["--only", "causal-d64-float16", "--repeats", "3"]),
    ("timing", ["--only", "d64-s512-causal-forward"]),
    ("timing", ["--only", "d64-s2048-causal-backward-float32"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("driver", "arguments"), DRIVERS)
def test_driver(driver, arguments, tmp_path, emulated):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.gpu.{driver}", "--backend", emulated, "--limit", "200",
         "--output", tmp_path, *arguments],
        cwd=native_build.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(next(tmp_path.glob("gpu-*.json")).read_text())
    assert record["driver"] == driver
    assert [row["status"] for row in record["rows"]] == ["ok"]
    assert next(tmp_path.glob("gpu-*.md")).read_text().startswith("| case |")


# Compiled with the emulator, whether or not the library has it: what they run, and how many rows.
PROGRAMS = {
    "probes": ([], 23),
    "experiments": (["--only", "d64-causal"], 5),
}


@pytest.mark.slow
@pytest.mark.parametrize("driver", PROGRAMS)
def test_program(driver, tmp_path):
    arguments, num_rows = PROGRAMS[driver]
    native_build.tool("g++")
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.gpu.{driver}", "--backend", "cuda-emulated",
         "--limit", "200", "--output", tmp_path, *arguments],
        cwd=native_build.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(next(tmp_path.glob(f"gpu-{driver}-*.json")).read_text())
    assert [row["status"] for row in record["rows"]] == ["ok"] * num_rows
