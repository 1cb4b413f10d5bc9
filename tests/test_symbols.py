"""Do the kernels of each instruction set stay apart, and is only the C interface exported?"""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest

import attnext
import native_build

HEADER = native_build.ROOT / "cpp" / "include" / "attnext" / "attnext.h"
TRAP = """
#include <vector>
int sum(int n) { std::vector<int> x; x.push_back(n); x.resize(n); return x.back(); }
"""


# Compilers' own, without any arithmetic: pointers to the unwinder's functions, a call of terminate.
HARMLESS = ("DW.ref.", "__clang_call_terminate")


def foreign_weak_symbols(object_file: Path, namespace: str) -> list[str]:
    """Weak definitions outside `namespace`, which the linker may give to every caller."""
    listing = native_build.run(native_build.tool("nm"), "-C", "--defined-only", object_file)
    lines = [line.split(maxsplit=2) for line in listing.splitlines()]
    weak = [words[2] for words in lines if len(words) == 3 and words[1] in {"W", "V", "u"}]
    return [name for name in weak if namespace not in name and not name.startswith(HARMLESS)]


def exported_functions(library: Path) -> set[str]:
    listing = native_build.run(native_build.tool("nm"), "-D", "--defined-only", library)
    return {line.split()[-1] for line in listing.splitlines()}


def declared_functions() -> set[str]:
    return set(re.findall(r"ATTNEXT_API [^;(]*?\b(attnext_\w+)\(", HEADER.read_text()))


def test_the_check_sees_a_stray_template(tmp_path):
    compiler = shutil.which("c++") or pytest.skip("c++ is not installed")
    source = tmp_path / "trap.cpp"
    source.write_text(TRAP)
    native_build.run(compiler, "-O2", "-c", source, "-o", tmp_path / "trap.o")
    assert any(
        "std::vector" in name for name in foreign_weak_symbols(tmp_path / "trap.o", "isa_x::")
    )


@pytest.mark.skipif(not native_build.NATIVE_ISAS, reason="only x86-64 has several objects")
@pytest.mark.parametrize("name", native_build.NATIVE_ISAS)
def test_weak_symbols_stay_in_their_namespace(name):
    kernels = native_build.kernel_objects(native_build.native_library())[name]
    assert foreign_weak_symbols(kernels, f"attnext::cpu::isa_{name}::") == []


@pytest.mark.skipif(sys.platform != "linux", reason="nm -D reads ELF")
def test_the_installed_library_exports_the_c_interface_only():
    library = Path(attnext.get_cmake_dir()).parents[1] / "libattnext.so"
    assert exported_functions(library) == declared_functions()


@pytest.mark.parametrize(("machine", "name"), [("aarch64", "neon"), ("x86_64", "avx512")])
def test_clang_compiles_the_kernels(machine, name):
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang, which brings clang for every machine, is not installed")
    zig = Path(importlib.util.find_spec("ziglang").submodule_search_locations[0]) / "zig"
    build = native_build.build_tree(
        machine, f"attnext_kernels_{name}", f"-DATTNEXT_ISAS={name}",
        "-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={machine}",
        # Objects only, for CMake's own checks too: the first program that zig links for a machine
        # costs it a minute to build that machine's C++ library.
        "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY",
        compiler=f"{zig} c++ --target={machine}-linux-gnu -c",
    )  # fmt: skip
    kernels = native_build.kernel_objects(build)
    assert set(kernels) == {name}
    assert foreign_weak_symbols(kernels[name], f"attnext::cpu::isa_{name}::") == []
