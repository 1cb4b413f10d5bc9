"""What the build tests share: tools, processes, and one CMake build of the source tree per run."""

import functools
import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
IS_X86_64 = platform.machine().lower() in {"x86_64", "amd64"}

# The widest instruction set is where a stray weak symbol does harm, and compiling needs no machine
# that can run it; the baseline runs everywhere. The other two differ in flags alone.
NATIVE_ISAS = ("baseline", "avx512") if IS_X86_64 else ()

_scratch = tempfile.TemporaryDirectory(prefix="attnext-build-")


def tool(name: str) -> str:
    """Path of a program, from this environment first; the test is skipped where there is none."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: object, **options) -> str:
    """Run a program and return what it printed; a failure shows that."""
    texts = [str(word) for word in command]
    done = subprocess.run(
        texts, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{' '.join(texts)}\n{done.stdout}"
    return done.stdout


def configure(source: Path, build: Path, *arguments: str, **options) -> None:
    """Configure `source` for a release build with Ninja."""
    ninja = f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"
    run(tool("cmake"), "-S", source, "-B", build, "-G", "Ninja", ninja,
        "-DCMAKE_BUILD_TYPE=Release", *arguments, **options)  # fmt: skip


@functools.cache
def build_tree(name: str, target: str, *arguments: str, compiler: str | None = None) -> Path:
    """Build a target below a directory that lives as long as the test run, and return that."""
    build = Path(_scratch.name) / name
    environment = {name: x for name, x in os.environ.items() if not name.startswith("ATTNEXT_CUDA")}
    if compiler is not None:
        environment["CXX"] = compiler
    configure(ROOT, build, *arguments, env=environment)
    run(tool("cmake"), "--build", build, "--target", target)
    return build


def native_library() -> Path:
    """Build with the system's own compiler, of the instruction sets in NATIVE_ISAS."""
    chosen = (f"-DATTNEXT_ISAS={';'.join(NATIVE_ISAS)}",) if NATIVE_ISAS else ()
    return build_tree("native", "attnext", *chosen)


def kernel_objects(build: Path) -> dict[str, Path]:
    """Each instruction set's object file in a build directory."""
    prefix = "attnext_kernels_"
    folders = build.glob(f"CMakeFiles/{prefix}*.dir")
    return {
        folder.name.removeprefix(prefix).removesuffix(".dir"): next(folder.rglob("kernels*.cpp.o"))
        for folder in folders
    }
