"""Are the bits the same for any threads, batch and callers, and after a fork?"""

import os
import threading

import numpy as np
import pytest
import threadpoolctl

import attnext
from cases import CASES

BY_NAME = {case.name: case for case in CASES}
NAMES = (
    "many_chunks", "many_chunks_square", "decode_1", "gqa_everything", "bias_long", "bias_bhqk",
    "bias_shared_by_long_and_short",
    "packed_everything", "lengths_everything", "dropout_long", "neg_sq_l2_long", "additive_hd_hd",
    "alibi_long",
)  # fmt: skip


@pytest.fixture(autouse=True)
def default_threads():
    """Each test begins and ends with the default number of threads."""
    yield
    attnext.set_num_threads(None)


def everything(x):
    """All results of a forward and a backward pass."""
    out, lse = attnext.attention(x.q, x.k, x.v, return_lse=True, **x.options)
    grads = attnext.attention_backward(x.dout, x.q, x.k, x.v, out, lse, dlse=x.dlse, **x.options)
    return [out, lse, *(g for g in grads if g is not None)]


def bits(arrays):
    return [np.ascontiguousarray(x).tobytes() for x in arrays]


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_threads(name, dtype):
    x = BY_NAME[name].inputs(dtype, attnext.AdditiveScore)
    found = []
    for count in (1, 2, 3, 8):
        attnext.set_num_threads(count)
        assert attnext.get_num_threads() == count
        found.append(bits(everything(x)))
    assert all(other == found[0] for other in found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("option", ["", "causal", "window", "mask", "alibi_slopes", "dropout"])
def test_blocks_of_many_rows(option, dtype):
    """The end of a call is cut into smaller blocks for more threads."""
    rng = np.random.default_rng(1)
    seqlen = 1700
    q, k, v = (rng.normal(size=(1, 6, seqlen, 16)).astype(dtype) for _ in range(3))
    options = {
        "": {},
        "causal": {"causal": True},
        "window": {"window": (300, 40)},
        "mask": {"mask": rng.random((seqlen, seqlen)) < 0.7},
        "alibi_slopes": {"alibi_slopes": np.linspace(0.1, 0.6, 6)},
        "dropout": {"dropout": 0.2, "seed": 5},
    }[option]
    found = []
    for count in (1, 8):
        attnext.set_num_threads(count)
        told = attnext.explain(q, k, v, **options)
        found.append((bits(attnext.attention(q, k, v, return_lse=True, **options)), told))
    (one, told_one), (many, told_many) = found
    assert one == many
    if option != "alibi_slopes":
        assert told_one["items"] < told_many["items"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("seqlens", [(65, 130), (1, 2000), (4, 513), (200, 200)])
def test_any_batch(seqlens, dtype):
    """A sequence gets the same bits alone and among others."""
    rng = np.random.default_rng(0)
    q, k, v, dout = (
        rng.normal(size=(5, 4, s, 32)).astype(dtype) for s in (*seqlens, seqlens[1], seqlens[0])
    )
    out, lse = attnext.attention(q, k, v, causal=True, return_lse=True)
    grads = attnext.attention_backward(dout, q, k, v, out, lse, causal=True)
    for b in (0, 3):
        one = slice(b, b + 1)
        out_b, lse_b = attnext.attention(q[one], k[one], v[one], causal=True, return_lse=True)
        grads_b = attnext.attention_backward(
            dout[one], q[one], k[one], v[one], out_b, lse_b, causal=True
        )
        assert bits([out[one], lse[one]]) == bits([out_b, lse_b])
        assert bits(g[one] for g in grads[:3]) == bits(grads_b[:3])


def test_concurrent_callers():
    problems = [BY_NAME[name].inputs("float32", attnext.AdditiveScore) for name in NAMES]
    expected = [bits(everything(x)) for x in problems]
    failures = []

    def call(first):
        for n in range(2 * len(problems)):
            which = (first + n) % len(problems)
            if bits(everything(problems[which])) != expected[which]:
                failures.append(NAMES[which])

    callers = [threading.Thread(target=call, args=(first,)) for first in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=120)
        assert not caller.is_alive()
    assert not failures


AFTER_FORK = """
import os, signal, sys
import numpy as np
import attnext

rng = np.random.default_rng(0)
q = rng.standard_normal((2, 4, 300, 32), np.float32)
attnext.set_num_threads(3)
out, vjp = attnext.attention_vjp(q, q, q, causal=True)
expected = [out.tobytes(), *(g.tobytes() for g in vjp(out)[:3])]
child = os.fork()
if child == 0:
    signal.alarm(60)
    again, vjp = attnext.attention_vjp(q, q, q, causal=True)
    os._exit(0 if [again.tobytes(), *(g.tobytes() for g in vjp(again)[:3])] == expected else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert attnext.attention(q, q, q, causal=True).tobytes() == expected[0]
print("alive")
"""


def test_after_fork(run_python):
    assert run_python(AFTER_FORK) == "alive\n"


PRINT_THREADS = "import attnext; print(attnext.get_num_threads())"


def test_environment(run_python):
    assert run_python(PRINT_THREADS, ATTNEXT_NUM_THREADS="3", OMP_NUM_THREADS="5") == "3\n"
    assert run_python(PRINT_THREADS, ATTNEXT_NUM_THREADS="", OMP_NUM_THREADS="5") == "5\n"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity(run_python):
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});" + PRINT_THREADS
    assert run_python(code, ATTNEXT_NUM_THREADS="", OMP_NUM_THREADS="") == "1\n"


def test_set_num_threads_and_back():
    default = attnext.get_num_threads()
    attnext.set_num_threads(7)
    assert attnext.get_num_threads() == 7
    attnext.set_num_threads(None)
    assert attnext.get_num_threads() == default


def test_num_threads_block():
    attnext.set_num_threads(3)
    with attnext.num_threads(2):
        assert attnext.get_num_threads() == 2
    assert attnext.get_num_threads() == 3


def test_threadpoolctl():
    attnext.register_threadpoolctl()
    attnext.set_num_threads(3)
    with threadpoolctl.threadpool_limits(1, user_api="attnext"):
        assert attnext.get_num_threads() == 1
    assert attnext.get_num_threads() == 3
    assert any(pool["user_api"] == "attnext" for pool in threadpoolctl.threadpool_info())
