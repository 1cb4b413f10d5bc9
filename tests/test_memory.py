"""Do the passes stay within their buffers, and within memory linear in the sequence?"""

import subprocess
import sys
from pathlib import Path

import pytest

from inputs import DTYPES

HERE = Path(__file__).parent

PEAK = """
import resource, sys
import numpy as np
import attnext

rng = np.random.default_rng(0)
shape = (1, 1, {seqlen}, {dim})
q, k, v, dout = (rng.standard_normal(shape, np.float32) for _ in range(4))
attnext.attention(q[:, :, :64], k[:, :, :64], v[:, :, :64])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out, lse = attnext.attention(q, k, v, return_lse=True, {options})
grads = attnext.attention_backward(dout, q, k, v, out, lse, {options}) if {backward} else [out]
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert all(np.isfinite(x).all() for x in (out, *grads) if x is not None)
print((after - before) // 1024)
"""


def peak_megabytes(run_python, seqlen, dim, options, backward):
    return int(run_python(PEAK.format(seqlen=seqlen, dim=dim, options=options, backward=backward)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_byte_around_a_buffer(dtype):
    done = subprocess.run(
        [sys.executable, str(HERE / "guard_pages.py"), dtype],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.endswith("untouched\n"), done.stdout[-200:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    "options",
    [
        "causal=True",
        "window=(256, 0), score='neg_sq_l2', scale=0.1",
        "window=(300, 300), dropout=0.1, seed=1",
    ],
)
def test_memory_at_32k(run_python, options):
    """32,768 squared float32 scores are 4 GiB; inputs are outside the 200 MB, results within."""
    assert peak_megabytes(run_python, 32768, 64, options, backward=True) <= 200


def test_memory_of_both_directions(run_python):
    """The result is four gradients of 16 MiB; two more exist while directions are added."""
    code = """
import resource
import numpy as np
import attnext
rng = np.random.default_rng(0)
q, k, v_q, v_k = (rng.standard_normal((1, 4, 16384, 64), np.float32) for _ in range(4))
results = attnext.bidirectional_attention(q, k, v_q, v_k, return_lse=True, window=(64, 64))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
grads = attnext.bidirectional_attention_backward(
    *results[:2], q, k, v_q, v_k, *results, window=(64, 64))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
assert all(np.isfinite(x).all() for x in grads[:4])
"""
    assert int(run_python(code)) <= 110


def test_memory_of_decode_at_a_million_keys(run_python):
    code = """
import resource
import numpy as np
import attnext
q, k = np.ones((1, 1, 1, 16), np.float32), np.ones((1, 1, 1 << 20, 16), np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out, lse = attnext.attention(q, k, k, return_lse=True)
assert abs(out - 1).max() < 1e-5
assert abs(lse - (16 * 0.25 + np.log(1 << 20))).max() < 1e-4
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    assert int(run_python(code)) <= 50


def test_stats_never_hold_the_scores(run_python):
    code = """
import resource
import numpy as np
import attnext
q = np.random.default_rng(0).standard_normal((1, 1, 16384, 16), np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
stats = attnext.attention_stats(q, q)
assert abs(stats.key_mass.sum() - 16384) < 1
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    assert int(run_python(code)) <= 100


def test_calls_after_the_first_find_their_memory(run_python):
    """No page is faulted in anew, whatever the C library does with what is freed."""
    code = """
import resource
import numpy as np
import attnext

def faults(call):
    for _ in range(3):
        call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        call()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10

rng = np.random.default_rng(0)
q, k, v, dout = (rng.standard_normal((1, 4, 512, 64), np.float32) for _ in range(4))
out, lse = attnext.attention(q, k, v, return_lse=True)
print(faults(lambda: attnext.attention(q, k, v)),
      faults(lambda: attnext.attention_backward(dout, q, k, v, out, lse)),
      faults(lambda: np.empty(1 << 17)[::512].fill(0)))
"""
    printed = run_python(code, MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="16384")
    forward, backward, numpy = map(float, printed.split())
    assert numpy >= 100  # it was told to give back at once
    assert forward <= 16
    assert backward <= 16
