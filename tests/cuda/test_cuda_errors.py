"""What happens when a device fails? A RuntimeError that names the call, and the next call works."""

import os
import subprocess
import sys

import numpy as np
import pytest

import attnext
from draws import problem

STAGED = [
    ("cudaStreamCreateWithFlags", 1), ("cudaMallocHost", 1), ("cudaMallocHost", 2),
    ("cudaMallocFromPoolAsync", 1), ("cudaMallocFromPoolAsync", 3), ("cudaMallocFromPoolAsync", 5),
    ("cudaMemPoolCreate", 1), ("cudaMemPoolSetAttribute", 1), ("cudaMemcpyAsync", 1),
    ("cudaMemcpyAsync", 4), ("cudaStreamSynchronize", 1), ("launch", 1), ("launch", 2),
]  # fmt: skip
KERNELS = {1: "deliver_kernel", 2: "forward"}  # of a call with options in host memory, in order
PROGRAM = """
import numpy as np, attnext
q, k, v = np.random.default_rng(0).standard_normal((3, 2, 9, 16)).astype(np.float32)
{body}
"""


def run_alone(body, **environment):
    """In a process of its own: nothing is pooled yet, and a lost device harms nobody."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], check=False, capture_output=True,
        text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


FAIL_THEN_WORK = """
import os
try:
    attnext.attention(q, k, v, backend="cuda-emulated")
    print("no error")
except RuntimeError as error:
    print(type(error).__name__, error)
del os.environ["ATTNEXT_EMULATOR_FAIL"]
out = attnext.attention(q, k, v, backend="cuda-emulated")
print(bool(np.allclose(out, attnext.attention(q, k, v), atol=1e-5)))
"""


@pytest.mark.parametrize(("call", "number"), STAGED)
def test_a_failed_call_is_named_and_the_next_one_works(call, number, emulated):
    printed = run_alone(FAIL_THEN_WORK, ATTNEXT_EMULATOR_FAIL=f"{call}:{number}")
    message, worked = printed.strip().splitlines()
    name = call if call != "launch" else KERNELS[number]
    assert message.startswith("RuntimeError attention: "), message
    assert name in message
    assert "failed: " in message
    assert worked == "True"


def test_no_memory_is_said_in_cudas_words(emulated):
    printed = run_alone(FAIL_THEN_WORK, ATTNEXT_EMULATOR_FAIL="cudaMallocFromPoolAsync:1")
    assert "cudaMallocFromPoolAsync failed: out of memory (cudaErrorMemoryAllocation)" in printed


LEAK = """
import os
def free():
    return [b for b in attnext.backends() if b.name == "cuda-emulated"][0].reason
big = np.zeros((2, 4096, 64), np.float32)
attnext.attention(q, big[..., :16], big, backend="cuda-emulated", kv_lengths=[5])
before = free()
for i in range(120):
    os.environ["ATTNEXT_EMULATOR_FAIL"] = f"{allocate}:{{1 + i % 4}}" if i % 2 else "launch:1"
    try:
        attnext.attention(q, big[..., :16], big, backend="cuda-emulated", kv_lengths=[5])
        print("no error")
    except RuntimeError:
        pass
os.environ["ATTNEXT_EMULATOR_FAIL"] = ""
print(before == free(), "GiB free" in before)
"""


@pytest.mark.parametrize("allocate", ["cudaMallocFromPoolAsync", "cudaMalloc"])
def test_nothing_leaks_on_the_error_path(emulated, allocate):
    pools = str(int(allocate != "cudaMalloc"))
    body = LEAK.format(allocate=allocate)
    assert run_alone(body, ATTNEXT_EMULATOR_POOLS=pools).strip() == "True True"


def test_an_old_driver(emulated):
    body = (
        "try:\n    attnext.attention(q, k, v, backend='cuda-emulated')\n"
        "except RuntimeError as error:\n    print(error)"
    )
    printed = run_alone(body, ATTNEXT_EMULATOR_FAIL="cudaGetDeviceCount:1")
    assert printed.startswith("attention: cudaGetDeviceCount failed: CUDA driver version is ")


def test_no_device(emulated):
    body = (
        "try:\n    attnext.attention(q, k, v, backend='cuda-emulated')\n"
        "except RuntimeError as error:\n    print(error)"
    )
    printed = run_alone(body, ATTNEXT_EMULATOR_DEVICES="0")
    assert printed.startswith("attention: cudaGetDeviceCount failed: no CUDA-capable device")


def test_bad_input_is_refused_before_the_device(emulated):
    q, k, v = problem(dtype=np.float32)
    with pytest.raises(ValueError, match=r"^attention: k must have q's head_dim 16, found 8"):
        attnext.attention(q, k[..., :8], v, backend=emulated)


def test_a_disabled_back_end_says_so():
    body = (
        "try:\n    attnext.attention(q, k, v, backend='cuda')\n"
        "except RuntimeError as error:\n    print(error)"
    )
    printed = run_alone(body, ATTNEXT_DISABLE_CUDA="1")
    expected = "attention: backend 'cuda' is not there: ATTNEXT_DISABLE_CUDA=1 is set"
    assert printed.strip() == expected


def test_import_and_the_cpu_never_load_a_plug_in():
    body = "attnext.attention(q, k, v)\nprint('attnext_cuda' in open('/proc/self/maps').read())"
    if not os.path.exists("/proc/self/maps"):
        pytest.skip("there is no /proc to look into")
    assert run_alone(body).strip() == "False"
