"""Is what nvcc makes of the kernels what was meant? No spills, no warnings, matrix units used."""

import operator
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.gpu import instructions

import attnext
import native_build

ROOT = native_build.ROOT

# An instance of each kind, an architecture it is chosen on, what its code must consist of, and how
# many registers a thread of its kernels may take, largest first. A multiprocessor has 65,536: 168
# leave room for three blocks of 128 threads, 128 and 80 for two and three of 256; a thread has 255.
GATED = [
    ("mma_forward_f16_64_75_options", "75", r"HMMA\.1688\.F32", [255]),
    ("mma_both_f16_128_75_options", "75", r"HMMA\.1688\.F32", [255]),
    ("mma_forward_bf16_128_80_plain", "80", r"HMMA\.16816\.F32\.BF16", [255]),
    ("mma_forward_bf16_128_80_few", "90a", r"HMMA\.16816\.F32\.BF16", [168]),
    ("mma_queries_f16_64_80_plain", "90a", r"HMMA\.16816\.F32", [255]),
    ("mma_both_bf16_128_80_options", "120", r"HMMA\.16816\.F32\.BF16", [255]),
    ("mma_keys_bf16_256_80_options", "80", r"HMMA\.16816\.F32\.BF16", [255]),
    ("mma_forward_f32_64_80_options", "80", r"HMMA\.1688\.F32\.TF32", [255]),
    ("mma_keys_f32_128_80_options", "90a", r"HMMA\.1688\.F32\.TF32", [255]),
    ("simt_forward_f32_dot", "86", r"FFMA", [255, 128]),
    ("simt_backward_f64_dot", "80", r"DFMA", [255, 255]),
    ("simt_backward_f64_square", "90a", r"DFMA", [255, 255]),
    ("simt_stats_f32_dot", "90a", r"FFMA", [255, 128]),
    ("simt_steps_f32", "90a", r"SHFL\.BFLY", [80] * 7),
]


def lacks(what):
    """Skips the test, or fails it where what nvcc makes has to be looked into, as in .ci/run."""
    (pytest.fail if os.environ.get("ATTNEXT_REQUIRE_NVCC") else pytest.skip)(what)


def nvcc():
    """Path of nvcc."""
    return shutil.which("nvcc") or lacks("nvcc is not in PATH")


def disassembler():
    """Path of nvdisasm."""
    found = instructions.find_disassembler()
    return found or lacks("nvdisasm is not installed: pip install nvidia-cuda-nvdisasm")


def compiled(name, arch, folder):
    """The instance as a cubin, and what ptxas said about it."""
    nvcc()
    return instructions.compile_instance(name, arch, folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arch", "instruction", "registers"), GATED, ids=[row[0] for row in GATED]
)
def test_code(name, arch, instruction, registers, tmp_path):
    cubin, said = compiled(name, arch, tmp_path)
    spills = re.findall(r"(\d+) bytes spill", said)
    assert spills
    assert set(spills) == {"0"}, said
    assert not re.search(r"\bC75\d\d\b", said), said
    taken = sorted(map(int, re.findall(r"Used (\d+) registers", said)), reverse=True)
    assert len(taken) == len(registers)
    assert all(map(operator.le, taken, registers)), f"{name} takes {taken} registers"
    code = native_build.run(disassembler(), "-c", cubin)
    assert re.search(instruction, code), f"{name} does not use {instruction}"
    assert not re.search(r"\b(STL|LDL)\b", code), f"{name} keeps registers in local memory"


# The most that a warp may issue for a product, and read of shared memory by ldmatrix. See the
# module for what a multiprocessor has time for.
USUAL = {
    "mma_forward_f16_64_80_plain": (4.3, 0.25),
    "mma_forward_f16_128_80_plain": (3.2, 0.334),
    "mma_queries_f16_64_80_plain": (4.3, 0.334),
    "mma_both_f16_64_80_plain": (4.6, 0.375),
    "mma_queries_f16_128_80_plain": (3.8, 0.5),
    "mma_both_f16_128_80_plain": (3.7, 0.563),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", instructions.CASES, ids=lambda case: case.name)
def test_little_is_issued_beside_products(case, tmp_path):
    disassembler()
    cubin, _ = compiled(case.name, "90", tmp_path)
    (code,) = instructions.kernels(cubin).values()
    usage = code.usage(case.copies, case.steps)
    most_instructions, most_loads = USUAL[case.name]
    assert usage.instructions / usage.products <= most_instructions
    assert usage.loads / usage.products <= most_loads


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["75", "90a"])
def test_lanes_of_a_block_sum_shuffle_together(arch, tmp_path):
    """Where a single lane came to a shuffle, ptxas would have to gather the others for it."""
    cubin, _ = compiled("simt_steps_f32", arch, tmp_path)
    code = native_build.run(disassembler(), "-c", cubin)
    kernel = re.compile(r"\n\.text\.\w*(heads|small_bias)_kernel\w*:(.*?)(?=\n\.text\.|\Z)", re.S)
    found = dict(kernel.findall(code))
    assert set(found) == {"heads", "small_bias"}
    for name, body in found.items():
        assert "SHFL" in body
        assert "WARPSYNC" not in body, f"backward_{name}_kernel shuffles in a branch"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mma_forward_f16_64_80_plain", "mma_both_f16_64_80_plain"])
def test_copies_are_on_their_way_while_products_run(name, tmp_path):
    """They are issued between a tile's only barrier and its first product."""
    cubin, _ = compiled(name, "80", tmp_path)
    code = native_build.run(disassembler(), "-c", cubin)
    first, last = code.index("HMMA"), code.rindex("HMMA")
    assert "LDGSTS" in code[code.rindex("BAR.SYNC", 0, first) : first]
    assert "BAR.SYNC" not in code[first:last]


def test_a_machine_without_a_driver_is_told_so():
    """The real plug-in is loaded, finds nothing to run on, and the CPU goes on."""
    if not (Path(attnext.get_include()).parent / "lib" / "libattnext_cuda.so").is_file():
        pytest.skip("the build has no CUDA: ATTNEXT_CUDA=ON pip install .")
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("there is a driver")
    q = np.ones((1, 1, 2, 4), np.float32)
    with pytest.raises(RuntimeError, match="there is no NVIDIA driver on this machine"):
        attnext.attention(q, q, q, backend="cuda")
    found = next(backend for backend in attnext.backends() if backend.name == "cuda")
    assert not found.available
    assert "there is no NVIDIA driver on this machine" in found.reason
    np.testing.assert_array_equal(attnext.attention(q, q, q), q)


def test_every_lasting_error_is_known(tmp_path):
    """Those of which CUDA's header says that only another process can use the device."""
    source = tmp_path / "empty.cu"
    source.touch()
    header = re.search(r"\S+/driver_types\.h", native_build.run(nvcc(), "-M", source))[0]
    error = re.compile(r"/\*\*((?:(?!\*/).)*)\*/\s*(cudaError\w+)\s*=\s*(\d+)", re.S)
    documented = error.findall(Path(header).read_text())
    lasting = {
        name: number
        for text, name, number in documented
        if "terminated and relaunched" in re.sub(r"[\s*]+", " ", text)
    }
    assert len(lasting) > 10
    known = (ROOT / "cuda" / "host" / "failure.cpp").read_text()
    for name, number in lasting.items():
        assert re.search(rf"\b({name}|{number})\b", known), f"{name} = {number}"


def test_every_instance_is_named_once():
    lines = (ROOT / "cuda" / "instances.txt").read_text().splitlines()
    names = [line.split()[0] for line in lines if line[:1].isalpha()]
    assert len(names) == len(set(names))
    for header, _ in instructions.instances().values():
        assert (ROOT / "cuda" / header).is_file(), header


PHASES = re.compile(r"(MUFU\.EX2)|WARPGROUP\.DEPBAR\.\w+ \w+, (0x[01])")


@pytest.mark.slow
def test_probes_of_hopper(tmp_path):
    source = ROOT / "benchmarks" / "gpu" / "probes_sm90.cu"
    cubin, said = instructions.compile_cubin(source, "90a", tmp_path)
    assert not re.search(r"\bC75\d\d\b", said), said
    code = native_build.run(disassembler(), "-c", cubin)
    for instruction in ("HGMMA", "UTMALDG", "UTMASTG", "UBLKRED", "USETMAXREG", r"REDG?\S*x4"):
        assert re.search(instruction, code), instruction


@pytest.mark.slow
def test_experiments_on_hopper(tmp_path):
    """With the fence, a step's exponentials stand between its two waits, so that they overlap."""
    source = ROOT / "benchmarks" / "gpu" / "experiments.cu"
    cubin, said = instructions.compile_cubin(source, "90a", tmp_path)
    assert not re.search(r"\bC75\d\d\b", said), said
    code = native_build.run(disassembler(), "-c", cubin)
    kernel = re.compile(
        r"\.text\.\w*7forward\w*ILi\d+ELi\d+ELi(\d+)ELb1E\w*:(.*?)(?=\.text\.|\Z)", re.S
    )
    found = kernel.findall(code)
    assert len(found) == 8
    for tile_k, body in found:
        order = "".join("e" if exp else wait[-1] for exp, wait in PHASES.findall(body))
        steps = re.findall(r"1(e*)0", order)
        assert len(steps) == 2  # of masked and of other tiles
        assert all(len(exps) >= int(tile_k) // 2 for exps in steps), order


def configured(folder, *arguments, **environment):
    """What CMake says of a tree in `folder`, configured with nothing of CUDA in the environment."""
    kept = {name: x for name, x in os.environ.items() if not name.startswith(("ATTNEXT_", "CUDA"))}
    ninja = f"-DCMAKE_MAKE_PROGRAM={native_build.tool('ninja')}"
    return subprocess.run(
        [native_build.tool("cmake"), "-S", ROOT, "-B", folder, "-G", "Ninja", ninja,
         "-DATTNEXT_ISAS=baseline", *arguments],
        capture_output=True, text=True, check=False, env={**kept, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(("choice", "cure"), [("ON", "ATTNEXT_CUDA=pip"), ("pip", "pip install")])
def test_a_lack_of_nvcc_is_said_with_its_cure(choice, cure, tmp_path):
    """No compiler of this name, and a package of NVIDIA's name without one."""
    (tmp_path / "nvidia").mkdir()
    (tmp_path / "nvidia" / "__init__.py").touch()
    done = configured(
        tmp_path / "build", f"-DATTNEXT_CUDA={choice}", f"-DPython_EXECUTABLE={sys.executable}",
        CUDACXX=str(tmp_path / "nvcc"), PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    said = " ".join(done.stderr.split())  # CMake breaks lines
    assert done.returncode != 0
    assert f"ATTNEXT_CUDA={choice} needs" in said
    assert cure in said


def test_ptx_is_made_once_for_all_architectures(tmp_path):
    nvcc()
    done = configured(
        tmp_path, "-DATTNEXT_CUDA=ON", "-DATTNEXT_CUDA_ARCHS=75-real;80-real;90;100-real"
    )
    assert done.returncode == 0, done.stderr
    rules = (tmp_path / "build.ninja").read_text()
    flags = {line for line in rules.splitlines() if "FLAGS = " in line and "-gencode" in line}
    ptx = {frozenset(re.findall(r"arch=compute_(\w+),code=sm", line)) for line in flags}
    assert ptx <= {frozenset(["75"]), frozenset(["80"]), frozenset(["75", "80"])}
    assert any("code=sm_90 " in line and "code=compute_90 " in line for line in flags)
    assert not any("code=sm_86" in line for line in flags)


def test_ptx_that_leaves_kernels_empty_is_refused(tmp_path):
    """Devices from sm_80 on would run it, and choose kernels that sm_75 has not."""
    nvcc()
    done = configured(tmp_path, "-DATTNEXT_CUDA=ON", "-DATTNEXT_CUDA_ARCHS=75-virtual;90-real")
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert "must not have PTX for less than 80, found 75-virtual" in said
