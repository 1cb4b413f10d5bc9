"""Do the drivers for a real GPU run, see what is wrong, and survive it? Over the emulator."""

import argparse
import json
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest

import attnext
import native_build
from draws import problem

sys.path.insert(0, str(native_build.ROOT))
from benchmarks.gpu import common, correctness, problems, profile, sanitizers, timing, worker

# What is asked of each beside a quick run: the smallest case there is.
DRIVERS = [
    ("correctness", ["--only", "d64-s63-causal-gqa1-bfloat16-plain"], 1),
    ("correctness", ["--only", "d64-s65-full-gqa1-float32-everything"], 1),
    ("sanitizers", ["--only", "memcheck-d64-s65-causal-gqa2-float16"], 1),
    ("determinism", ["--only", "decode-d64-float32-fast", "--repeats", "3"], 1),
    ("timing", ["--only", "d64-s512-causal-forward"], 1),
    ("timing", ["--only", "d64-s2048-causal-backward-float32"], 1),
    ("suite", ["--only", "grid.py::test_backward[scale_per_head-", "--jobs", "2"], 4),
    ("suite", ["--only", "passes.py::test_weights[plain-", "--jobs", "2"], 3),
    ("arrays", ["--only", "emulated-", "--jobs", "2"], 12),
    ("profile", [], 1),
]


def drive(driver, arguments, folder):
    """The record that a driver leaves over the emulator."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.gpu.{driver}", "--backend", "cuda-emulated",
         "--output", folder, *arguments],
        cwd=native_build.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert next(folder.glob("gpu-*.md")).read_text().startswith("| case |")
    return json.loads(next(folder.glob(f"gpu-{driver}-*.json")).read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("driver", "arguments", "num_rows"), DRIVERS)
def test_driver(driver, arguments, num_rows, tmp_path, emulated):
    record = drive(driver, ["--limit", "200", *arguments], tmp_path)
    assert record["driver"] == driver
    assert len(record["rows"]) == num_rows
    statuses = {row["status"] for row in record["rows"]}
    assert statuses <= {"ok", "skipped"}
    assert "ok" in statuses or driver == "profile"


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
    record = drive(driver, ["--limit", "200", *arguments], tmp_path)
    assert [row["status"] for row in record["rows"]] == ["ok"] * num_rows


@pytest.mark.slow
def test_a_plan(tmp_path, emulated):
    """Its drivers in order within its time, and one file of what they left."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.run", "second", "--backend", emulated, "--quick",
         "--drivers", "profile", "sanitizers", "--output", tmp_path / "records",
         "--folder", tmp_path, "--bundle", tmp_path / "all.tar.gz", "--seconds", "200"],
        cwd=native_build.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "== sanitizers: exit 0" in done.stdout, done.stdout
    with tarfile.open(tmp_path / "all.tar.gz") as archive:
        names = archive.getnames()
    assert {name.split("-")[1] for name in names} == {"sanitizers", "profile"}, names


def test_the_real_default_is_a_back_end():
    """What is said of arrays on a device, where nothing is said of a back end."""
    x = problem(dtype=np.float32, dim=8)
    for pass_ in ("forward", "backward"):
        calls = timing.our_calls([*x, x[0]], False, pass_, "float32")
        assert all(call() is not None for call in calls.values())


CASE = {"seqlen": 4096, "dim": 64, "causal": False, "group": 1, "options": "plain"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_one_wrong_key_among_4096_is_seen(dtype):
    """The error of the CPU's kernels is allowed, that of a key too few is not."""
    x = problems.make({**CASE, "dtype": dtype})
    right, lse = attnext.attention(x.q, x.k, x.v, return_lse=True)
    truth = attnext.attention(*(problems.wide(array) for array in (x.q, x.k, x.v)))
    judged = ("out", truth, dtype, lse, CASE["seqlen"])
    assert correctness.check_rows(judged[0], right, *judged[1:]) < 1
    without = attnext.attention(x.q, x.k, x.v, mask=np.arange(4096) != 1234)
    with pytest.raises(AssertionError, match="of 4096 rows are wrong"):
        correctness.check_rows(judged[0], without, *judged[1:])


def test_nan_is_wrong():
    truth = np.ones((3, 8))
    with pytest.raises(AssertionError, match="1 of 3 rows are wrong"):
        correctness.check_rows(
            "out", np.where([[0], [1], [0]], np.nan, truth), truth, "float32", 1, 9
        )


def test_every_value_comes_early():
    chosen = list(common.spread(correctness.grid(), 60).values())
    for axis, values in {"seqlen": 6, "dim": 5, "causal": 2, "group": 2, "dtype": 5}.items():
        assert len({case[axis] for case in chosen[:20]}) == values, axis
    assert {case["options"] for case in chosen[:30]} == set(problems.OPTIONS)


def run_case(backend, case):
    """What `worker` runs of this file, as if it were a driver."""
    if case == "hang":
        time.sleep(60)
    if case == "die":
        sys.stderr.write("a kernel has gone\n")
        sys.stderr.flush()
        raise SystemExit(3)
    if case == "absent":
        raise worker.Skipped("no such thing")
    assert case != "wrong", "a number is off"
    if case == "lost":
        raise RuntimeError("an illegal memory access was encountered")
    return {"said": case}


@pytest.fixture
def chosen(tmp_path):
    return argparse.Namespace(
        backend="cuda-emulated", budget=30.0, limit=2.0, jobs=1, output=tmp_path
    )


def test_every_case_leaves_a_row(chosen, monkeypatch, capsys):
    """Whatever becomes of those before it, and on disk at once."""
    monkeypatch.setenv("PYTHONPATH", str(native_build.ROOT / "tests" / "cuda"), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(native_build.ROOT / "tests"), prepend=":")
    monkeypatch.setattr(common, "WRITE_EVERY", 0)
    names = ["a", "hang", "b", "die", "c", "wrong", "lost", "d", "absent"]
    status = common.run_in_workers("test_cuda_drivers", {name: name for name in names}, chosen)
    assert status == 1
    record = json.loads(next(chosen.output.glob("*.json")).read_text())
    found = {row["case"]: row["status"] for row in record["rows"]}
    assert found == {
        "a": "ok", "hang": "hung", "b": "ok", "die": "failed", "c": "ok", "wrong": "failed",
        "lost": "failed", "d": "ok", "absent": "skipped",
    }  # fmt: skip
    said = {row["case"]: row.get("output", "") for row in record["rows"]}
    assert "a kernel has gone" in said["die"]
    assert "illegal memory access" in said["lost"]


def test_the_record_is_there_after_each_row(chosen, monkeypatch, capsys):
    monkeypatch.setattr(common, "WRITE_EVERY", 0)
    record = common.Record("anything", chosen)
    for count in (1, 2):
        record.add(f"case {count}", {"status": "ok"})
        rows = json.loads(next(chosen.output.glob("gpu-anything-*.json")).read_text())["rows"]
        assert len(rows) == count


def test_a_spent_budget_is_said(chosen, capsys):
    chosen.budget, chosen.limit = 0.5, 20.0
    record = common.Record("anything", chosen)

    def run(name, case, limit):
        time.sleep(limit)
        return {"status": "hung"}

    start = time.monotonic()
    common.run_all({"long": 0, "later": 0}, chosen, record, [run])
    assert time.monotonic() - start < 5
    assert [row["status"] for row in record.rows] == [common.SPENT] * 2
    assert record.leave() == 1


def fake(name, text, folder, monkeypatch):
    """A program that says `text` and fails, before all others of its name."""
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{text}'\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize(
    ("said", "status"), [("Device not supported", "skipped"), ("ERROR SUMMARY: 1", "failed")]
)
def test_a_tool_that_is_refused_has_found_nothing(said, status, tmp_path, monkeypatch):
    fake("compute-sanitizer", said, tmp_path, monkeypatch)
    row = sanitizers.sanitized("memcheck", sanitizers.PROBLEMS[0], "cuda", 20)
    assert row["status"] == status
    assert said in row["output"]


@pytest.mark.parametrize(
    ("said", "status"), [("==ERROR== LibraryNotLoaded", "skipped"), ("anything", "failed")]
)
def test_a_profiler_that_is_refused_has_found_nothing(said, status, tmp_path, monkeypatch):
    fake("ncu", said, tmp_path, monkeypatch)
    (row,) = profile.profiled("", "d64-s8192-causal-forward-bfloat16", 20)
    assert row["status"] == status
    assert said in row["output"]


NCU = """==PROF== Connected to process 1
"ID","Process ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"
"0","1","void attnext::cuda::forward<1>()","GPU Speed Of Light Throughput","Duration","ms","1.5"
"0","1","void attnext::cuda::forward<1>()","Warp State Statistics","No Eligible","%","30"
"1","1","void attnext::cuda::combine()","GPU Speed Of Light Throughput","Duration","us","9"
"""


def test_a_profile_is_a_row_for_each_kernel():
    rows = profile.rows_of(NCU)
    assert [row["Duration (ms)"] for row in rows[:1]] == ["1.5"]
    assert rows[0]["No Eligible (%)"] == "30"
    assert rows[1]["kernel"] == "void attnext::cuda::combine()"
