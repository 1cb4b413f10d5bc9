"""How is everything run on a machine with a GPU, for which minutes and no network must do?

python -m benchmarks.gpu.run prepare --python python3.12   # with a network, without a GPU
python -m benchmarks.gpu.run first                         # there: nine minutes
python -m benchmarks.gpu.run second                        # there: five
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from . import programs
from .programs import ROOT

ARCH = "90-real"  # of the wheel that is prepared

# Drivers in order of value, and their seconds; what one leaves over, the next has. In `first` what
# tells whether the kernels are right and fast, in `second` what tells why not.
PLANS = {
    "first": {"suite": 170, "probes": 40, "correctness": 120, "arrays": 60, "timing": 130},
    "second": {"sanitizers": 90, "determinism": 50, "experiments": 50, "profile": 50},
}
SPARE = 20  # seconds for a driver to start and to end
REFRESH = 10  # seconds between two bundles

# What runs attnext, and what builds it where the prepared wheel does not load.
RUNTIME = ("array-api-compat",)
BUILDING = ("apache-tvm-ffi", "pybind11", "scikit-build-core", "packaging", "pathspec")
PROGRAMS = {"probes.cu": "90", "probes_sm90.cu": "90a", "experiments.cu": "90a"}


def prepare(chosen: argparse.Namespace) -> int:
    """Wheels and programs into a folder that is carried to the machine."""
    shutil.rmtree(chosen.folder, ignore_errors=True)
    version = subprocess.check_output(
        [chosen.python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True
    ).strip()
    for part, names in {"wheels": RUNTIME, "building": BUILDING}.items():
        subprocess.run(
            [chosen.python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
             "--python-version", version, "--dest", chosen.folder / part, *names], check=True,
        )  # fmt: skip
    # The build stays beside the folder: a second one compiles what has changed.
    build = chosen.folder.with_name(chosen.folder.name + "-build")
    cuda = "ON" if shutil.which("nvcc") else "pip"
    subprocess.run(
        [chosen.python, "-m", "pip", "wheel", "--no-deps", f"-Cbuild-dir={build}", "--wheel-dir",
         chosen.folder / "wheels", ROOT],
        check=True, env={**os.environ, "ATTNEXT_CUDA": cuda, "ATTNEXT_CUDA_ARCHS": ARCH},
    )  # fmt: skip
    (chosen.folder / "programs").mkdir()
    for source, arch in PROGRAMS.items():
        try:
            programs.build(source, "cuda", chosen.folder / "programs", arch)
        except RuntimeError as error:
            print(f"{source} will be compiled on the machine: {error}")
    size = sum(path.stat().st_size for path in chosen.folder.rglob("*") if path.is_file())
    print(f"{chosen.folder} is ready, {size / 2**20:.1f} MiB; the rest is the working tree")
    return 0


def has_backend(backend: str, environment: dict[str, str]) -> bool:
    """Whether attnext is importable and the back end there, and what it says of it."""
    code = (
        "import attnext, json; print(json.dumps([[b.name, b.available, b.reason] "
        "for b in attnext.backends()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    print(done.stdout.strip() or done.stderr.strip()[-1000:], flush=True)
    if done.returncode != 0:
        return False
    return any(name == backend and there for name, there, _ in json.loads(done.stdout))


def install(wheels: Path, site: Path, *more: str, **environment: str) -> bool:
    """Wheels, or a source tree with `more`, into a folder, without a network."""
    packages = [str(path) for path in sorted(wheels.glob("*.whl"))] if wheels.is_dir() else []
    if not packages and not more:
        return False
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
               "--no-compile", "--upgrade", "--target", str(site), *(more or packages)]  # fmt: skip
    return subprocess.run(command, check=False, env={**os.environ, **environment}).returncode == 0


def ready(chosen: argparse.Namespace, scratch: Path) -> dict[str, str] | None:
    """The environment in which attnext and the back end are there: as prepared, or built here."""
    path = os.environ.get("PYTHONPATH", "")
    here = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(scratch / "site"), path])),
    }
    install(chosen.folder / "wheels", scratch / "site")
    if has_backend(chosen.backend, here):
        return here
    print("neither prepared nor installed: built on this machine", flush=True)
    install(chosen.folder / "building", scratch / "building")
    for wheel in (chosen.folder / "wheels").glob("attnext*.whl"):
        print(f"{wheel.name} does not do here")
    tools = os.pathsep.join(filter(None, [str(scratch / "building"), path]))
    source = ["--no-build-isolation", f"-Cbuild-dir={scratch / 'build'}", str(ROOT)]
    install(
        chosen.folder, scratch / "site", *source, PYTHONPATH=tools, ATTNEXT_CUDA="ON",
        ATTNEXT_CUDA_ARCHS="native",
    )  # fmt: skip
    return here if has_backend(chosen.backend, here) else None


def bundle(chosen: argparse.Namespace) -> None:
    """All records of this run as one file, complete at any time."""
    if chosen.bundle is None:
        return
    partial = chosen.bundle.with_suffix(".partial")
    with tarfile.open(partial, "w:gz") as archive:
        for path in sorted(chosen.output.glob("gpu-*")):
            if path.stat().st_mtime >= chosen.start:
                archive.add(path, path.name)
    os.replace(partial, chosen.bundle)


def drive(name: str, budget: float, chosen: argparse.Namespace, environment: dict[str, str]) -> str:
    """Run one driver to its end or that of its time; returns how it went and what it said last."""
    start = time.time()
    command = [
        sys.executable, "-m", f"benchmarks.gpu.{name}", "--backend", chosen.backend, "--budget",
        f"{budget:.0f}", "--output", str(chosen.output), *(["--quick"] if chosen.quick else []),
    ]  # fmt: skip
    if (chosen.folder / "programs").is_dir():
        command += ["--programs", str(chosen.folder / "programs")]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=said, cwd=ROOT, env=environment, start_new_session=True
        )
        while process.poll() is None:
            try:
                process.wait(REFRESH)
            except subprocess.TimeoutExpired:
                bundle(chosen)
            if time.time() - start > budget + SPARE:
                programs.end_session(process)
        said.seek(0)
        lines = said.read().strip().splitlines()
    last = lines[-3:] if process.returncode else lines[-1:]
    bundle(chosen)
    text = "\n".join(line[-400:] for line in last)
    return f"== {name}: exit {process.returncode} after {time.time() - start:.0f} s\n{text}"


def measure(chosen: argparse.Namespace) -> int:
    """A plan, within its time whatever its drivers do."""
    chosen.start = time.time()
    chosen.output.mkdir(parents=True, exist_ok=True)
    left = {name: s for name, s in PLANS[chosen.plan].items() if name in chosen.drivers}
    total = chosen.seconds or sum(PLANS[chosen.plan].values()) + SPARE
    with tempfile.TemporaryDirectory() as scratch:
        environment = ready(chosen, Path(scratch))
        if environment is None:
            print(f"backend {chosen.backend!r} is not there: nothing can be measured")
            return 1
        results = []
        while left:
            name = next(iter(left))
            left.pop(name)
            remaining = total - (time.time() - chosen.start)
            budget = remaining - sum(left.values()) - SPARE
            if budget < SPARE:
                results.append(f"== {name}: not run, {remaining:.0f} s are left")
                continue
            results.append(drive(name, budget, chosen, environment))
            print(results[-1], flush=True)
    print(f"\n{chosen.plan}: {time.time() - chosen.start:.0f} s; records in {chosen.output}")
    print("\n".join(result.splitlines()[0] for result in results))
    return 0


def main(arguments: list[str]) -> int:
    """The command line."""
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    own.add_argument("plan", choices=("prepare", *PLANS))
    own.add_argument("--folder", type=Path, default=ROOT / "build" / "gpu", help="what is carried")
    own.add_argument("--python", default=sys.executable, help="of the version the machine has")
    own.add_argument("--backend", default="cuda", choices=("cuda", "cuda-emulated"))
    own.add_argument("--seconds", type=float, help="for the whole plan")
    own.add_argument("--drivers", nargs="+", default=[n for p in PLANS.values() for n in p])
    own.add_argument("--quick", action="store_true", help="a few small cases of each")
    own.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    own.add_argument("--bundle", type=Path, help="one .tar.gz of all records of this run")
    chosen = own.parse_args(arguments)
    chosen.folder, chosen.output = chosen.folder.resolve(), chosen.output.resolve()
    return prepare(chosen) if chosen.plan == "prepare" else measure(chosen)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
