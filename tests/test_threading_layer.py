"""Does work run on an OpenMP runtime's threads where it is asked to, with the same bits?"""

import ctypes.util
import sys

import pytest

import attnext
from processes import run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="runtimes are found on Linux")
LIBRARY = ctypes.util.find_library("gomp")
needs_runtime = pytest.mark.skipif(LIBRARY is None, reason="no OpenMP runtime is installed")

START = """
import ctypes, os, signal, threading
import numpy as np
import attnext

rng = np.random.default_rng(0)
q, k, v = (rng.standard_normal((2, 4, 300, 32), np.float32) for _ in range(3))

def bits():
    out, vjp = attnext.attention_vjp(q, k, v, causal=True, window=(200, 0))
    return [out.tobytes(), *(g.tobytes() for g in vjp(out)[:3])]

def threads():
    return len(os.listdir("/proc/self/task"))

attnext.set_num_threads(3)
alone = threads()
"""


def test_default_and_refusals():
    assert attnext.get_threading_layer() == "attnext"
    with pytest.raises(ValueError, match=r"layer must be 'attnext' or 'openmp', found 'tbb'"):
        attnext.set_threading_layer("tbb")


def test_without_a_runtime():
    code = """
import attnext
try:
    attnext.set_threading_layer("openmp")
except RuntimeError as error:
    print(error)
print(attnext.get_threading_layer())
"""
    message, layer = run_python(code).splitlines()
    assert message.startswith("set_threading_layer: layer 'openmp' needs an OpenMP runtime")
    assert layer == "attnext"


@needs_runtime
def test_bits_on_its_threads():
    code = f"""
{START}
runtime = ctypes.CDLL({LIBRARY!r})
runtime.omp_set_num_threads(4)
attnext.set_threading_layer("openmp")
assert attnext.get_threading_layer() == "openmp"
shared = bits()
assert threads() == alone + 3, threads()  # the team's; none of attnext's own
runtime.omp_set_num_threads(1)
assert bits() == shared
attnext.set_threading_layer("attnext")
assert bits() == shared
assert threads() >= alone + 2
print("same")
"""
    assert run_python(code) == "same\n"


@needs_runtime
def test_only_for_the_thread_that_asked():
    code = f"""
{START}
ctypes.CDLL({LIBRARY!r})
attnext.set_threading_layer("openmp")
expected, found = bits(), []
other = threading.Thread(target=lambda: found.extend([attnext.get_threading_layer(), bits()]))
other.start()
other.join()
assert found == ["attnext", expected]
print(attnext.get_threading_layer())
"""
    assert run_python(code) == "openmp\n"


@needs_runtime
def test_after_fork():
    code = f"""
{START}
ctypes.CDLL({LIBRARY!r})
attnext.set_threading_layer("openmp")
expected = bits()
child = os.fork()
if child == 0:
    signal.alarm(60)  # the runtime's threads do not exist here: it would wait for ever
    os._exit(0 if attnext.get_threading_layer() == "attnext" and bits() == expected else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert bits() == expected
print(attnext.get_threading_layer())
"""
    assert run_python(code) == "openmp\n"
