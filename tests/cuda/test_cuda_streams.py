"""Does a call on CUDA arrays wait for nothing, and can it be captured into a graph?"""

import os
from pathlib import Path

import numpy as np
import pytest

import attnext
from attnext import libraries
from device_array import DeviceArray, to_numpy
from draws import normal, problem
from test_cuda_errors import run_alone

# So many sequences that their description is no parameter of a kernel or two, but a copy.
MANY = 300


@pytest.fixture
def with_streams(emulated, monkeypatch):
    """Arrays are of a library with a stream: results need not be complete when it gets them."""
    monkeypatch.setattr(libraries, "cuda_stream", lambda array: 0)
    return emulated


def forward(where, q, k, v, **options):
    return attnext.attention(q, k, v, return_lse=True, **where, **options)


def backward(where, q, k, v, **options):
    out, lse = forward(where, q, k, v, **options)
    # Gradients of options in host memory go there, which is to wait.
    options |= {"wanted": ("dq", "dk", "dv"), **where}
    return attnext.attention_backward(out, q, k, v, out, lse, **options)[:3]


def weights(where, q, k, v, **options):
    return [attnext.attention_weights(q, k, rows=[3, 0], **where, **options)]


def stats(where, q, k, v, **options):
    return attnext.attention_stats(q, k, **where, **options)


def merge(where, q, k, v, **options):
    outs, lses = zip(*[forward(where, q, k, v, **options)] * 2, strict=True)
    return attnext.merge_attention(outs, lses, **where)


def options_of(batch):
    return {
        "causal": True, "scale": np.linspace(0.2, 0.4, 4), "sinks": np.zeros(4),
        "kv_lengths": np.arange(batch) % 70 + 1, "alibi_slopes": np.full((batch, 4), 0.1),
    }  # fmt: skip


@pytest.mark.parametrize("run", [forward, backward, weights, stats, merge])
def test_no_call_waits(with_streams, run, monkeypatch):
    host = problem(dtype=np.float32)
    device = [DeviceArray(x) for x in host]
    monkeypatch.setenv("ATTNEXT_EMULATOR_FAIL", "wait")
    found = run({"backend": with_streams}, *device, **options_of(2))
    monkeypatch.delenv("ATTNEXT_EMULATOR_FAIL")
    for ours, expected in zip(found, run({}, *host, **options_of(2)), strict=True):
        np.testing.assert_allclose(to_numpy(ours, np.float32), expected, rtol=1e-3, atol=1e-4)


def short_calls(batch, count):
    """Arrays of many sequences, and the keys that each of some calls sees of them."""
    q, k = normal(batch, 1, 1, 4, dtype=np.float32), normal(batch, 1, 9, 4, dtype=np.float32)
    return (q, k, k), [(np.arange(batch) + i) % 9 + 1 for i in range(count)]


@pytest.mark.parametrize("batch", [2, MANY])
def test_calls_in_flight_keep_their_own_options(batch, with_streams, monkeypatch):
    host, lengths = short_calls(batch, 6)
    device = [DeviceArray(x) for x in host]
    monkeypatch.setenv("ATTNEXT_EMULATOR_FAIL", "wait")
    outs = []
    for keys in lengths:
        given = keys.copy()
        outs.append(attnext.attention(*device, kv_lengths=given, backend=with_streams))
        given[:] = 0
    monkeypatch.delenv("ATTNEXT_EMULATOR_FAIL")
    for out, keys in zip(outs, lengths, strict=True):
        expected = attnext.attention(*host, kv_lengths=keys)
        np.testing.assert_allclose(to_numpy(out, np.float32), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [2, MANY])
def test_captured_calls_keep_their_own_options(batch, with_streams, monkeypatch):
    host, lengths = short_calls(batch, 3)
    device = [DeviceArray(x) for x in host]
    # Once before: memory is pinned, which a capture must leave alone.
    attnext.attention(*device, kv_lengths=lengths[0], backend=with_streams)
    outs = [DeviceArray(np.full_like(host[0], 7)) for _ in lengths]
    monkeypatch.setenv("ATTNEXT_EMULATOR_CAPTURE", "1")
    for out, keys in zip(outs, lengths, strict=True):
        attnext.attention(*device, out=out, kv_lengths=keys, backend=with_streams)
    monkeypatch.delenv("ATTNEXT_EMULATOR_CAPTURE")
    for out, keys in zip(outs, lengths, strict=True):
        expected = attnext.attention(*host, kv_lengths=keys)
        np.testing.assert_allclose(to_numpy(out, np.float32), expected, rtol=1e-4, atol=1e-5)


def test_backward_is_captured(with_streams, monkeypatch):
    host = problem(dtype=np.float32)
    out, lse = attnext.attention(*host, return_lse=True, causal=True)
    expected = attnext.attention_backward(out, *host, out, lse, causal=True)
    arrays = [DeviceArray(x) for x in (out, *host, out, lse)]
    gradients = [DeviceArray(np.full_like(x, 7)) for x in host]
    # Of a library that has memory for results ready, as PyTorch has while it captures.
    ready = iter(gradients)
    monkeypatch.setattr(libraries, "empty_beside", lambda *_: next(ready))
    monkeypatch.setenv("ATTNEXT_EMULATOR_CAPTURE", "1")
    attnext.attention_backward(*arrays, causal=True, backend=with_streams)
    monkeypatch.delenv("ATTNEXT_EMULATOR_CAPTURE")
    for found, truth in zip(gradients, expected[:3], strict=True):
        np.testing.assert_allclose(to_numpy(found, np.float32), truth, rtol=1e-3, atol=1e-4)


def test_what_must_be_complete_is_not_captured(emulated, monkeypatch):
    host = problem(dtype=np.float32)
    device = [DeviceArray(x) for x in host]
    out = DeviceArray(np.zeros_like(host[0]))
    monkeypatch.setenv("ATTNEXT_EMULATOR_CAPTURE", "1")
    expected = "^attention: the stream is being captured into a graph, and no copy or result can be"
    with pytest.raises(RuntimeError, match=expected):
        attnext.attention(*device, out=out, backend=emulated)
    monkeypatch.delenv("ATTNEXT_EMULATOR_CAPTURE")
    attnext.attention(*device, out=out, backend=emulated)
    np.testing.assert_allclose(
        to_numpy(out, np.float32), attnext.attention(*host), rtol=1e-4, atol=1e-5
    )


def test_memory_of_results_is_not_allocated_in_a_capture(with_streams, monkeypatch):
    device = [DeviceArray(x) for x in problem(dtype=np.float32)]
    monkeypatch.setenv("ATTNEXT_EMULATOR_CAPTURE", "1")
    expected = "cudaMalloc failed: operation not permitted when stream is capturing"
    with pytest.raises(RuntimeError, match=expected):
        attnext.attention(*device, backend=with_streams)


NO_POOLS = """
import os
import attnext
from attnext import libraries
from device_array import DeviceArray, to_numpy
libraries.cuda_stream = lambda array: 0
device = [DeviceArray(x) for x in (q, k, v)]
out = DeviceArray(np.zeros_like(q))
for capture in "", "1", "":
    os.environ["ATTNEXT_EMULATOR_CAPTURE"] = capture
    try:
        attnext.attention(*device, out=out, backend="cuda-emulated", causal=True)
    except RuntimeError as error:
        print(error)
same = np.allclose(to_numpy(out, np.float32), attnext.attention(q, k, v, causal=True), atol=1e-5)
print(same)
"""


def test_a_device_without_pools(emulated):
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    printed = run_alone(NO_POOLS, PYTHONPATH=path, ATTNEXT_EMULATOR_POOLS="0")
    first, second = printed.strip().splitlines()
    assert first == (
        "attention: the stream is being captured into a graph, and this device has no memory pool "
        "that workspace could come from"
    )
    assert second == "True"


KEPT = """
def free():
    text = [b for b in attnext.backends() if b.name == "cuda-emulated"][0].reason
    return float(text.split(" of ")[0].split()[-1])
def call(seqlen_k):
    values = np.zeros((2, seqlen_k, 32), np.float32)
    keys = values[..., :1]
    attnext.attention(q[..., :1], keys, values, kv_lengths=[5], backend="cuda-emulated")
call(9)  # the buffers that arrays travel through stay
free_before = free()
for _ in range(2):
    call(140_000)
    print(round(free_before - free(), 2))
"""


def test_workspace_is_kept_for_the_next_call(emulated):
    """As much as values of 34 MiB took."""
    assert run_alone(KEPT).split() == ["0.03", "0.03"]
