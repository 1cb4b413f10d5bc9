"""How fast is it beside cuDNN and FlashAttention-2, and in float32 beside torch's own kernel?

Interleaved with torch's back ends on one GPU; float32 at both of set_float32_precision.

TFLOP/s follow FlashAttention's convention: 4 B H Sq Sk D forward, half of it where causal, 2.5
times as much backward, whatever a kernel really multiplies.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import attnext

from . import common
from .libraries import imported

TOKENS, WIDTH = 16384, 2048  # batch * seqlen and heads * head_dim of every case

BUSY = 1_000_000  # clock cycles: longer than a call takes to be queued

# Sequence lengths and head_dims of each dtype; what others publish comes first.
SIZES = {
    "bfloat16": ((8192, 2048, 512, 16384), (128, 64, 256, 96, 192)),
    "float32": ((8192, 2048), (128, 64)),
}

# Our names, and what set_float32_precision is told for each; the names of torch's back ends.
OURS = {
    "bfloat16": {"attnext": "exact"},
    "float32": {"attnext exact": "exact", "attnext fast": "fast"},
}
PEERS = {
    "bfloat16": {"cuDNN": "CUDNN_ATTENTION", "FlashAttention-2": "FLASH_ATTENTION"},
    "float32": {"torch": "EFFICIENT_ATTENTION"},  # the others take 16-bit types only
}

Case = tuple[int, int, bool, str, str]
Calls = dict[str, Callable[[], Any]]


def grid() -> dict[str, Case]:
    """Names and (head_dim, seqlen, causal, pass, dtype)."""
    return {
        f"d{dim}-s{seqlen}-{'causal' if causal else 'full'}-{pass_}-{dtype}": (
            dim, seqlen, causal, pass_, dtype,
        )
        for dtype, (seqlens, dims) in SIZES.items()
        for seqlen in seqlens
        for dim in dims
        for causal in (True, False)
        for pass_ in ("forward", "backward")
    }  # fmt: skip


def work(shape: tuple[int, ...], causal: bool, pass_: str) -> float:
    """Floating-point operations by the convention above."""
    batch, heads, seqlen, dim = shape
    forward = 4.0 * batch * heads * seqlen * seqlen * dim * (0.5 if causal else 1.0)
    return forward * (2.5 if pass_ == "backward" else 1.0)


def our_calls(
    arrays: Any, causal: bool, pass_: str, dtype: str, backend: str | None = None
) -> Calls:
    """A pass over q, k, v, dout at every precision there is; where the arrays are, by default."""
    q, k, v, dout = arrays

    def call(precision: Any) -> Callable[[], Any]:
        attnext.set_float32_precision(precision)
        out, lse = attnext.attention(q, k, v, causal=causal, return_lse=True, backend=backend)

        def run() -> Any:
            attnext.set_float32_precision(precision)
            if pass_ == "forward":
                return attnext.attention(q, k, v, causal=causal, backend=backend)
            return attnext.attention_backward(
                dout, q, k, v, out, lse, causal=causal, backend=backend
            )

        return run

    return {name: call(precision) for name, precision in OURS[dtype].items()}


def torch_calls(arrays: Any, causal: bool, pass_: str, dtype: str) -> Calls:
    """The same pass by those of torch's back ends that run it."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    *qkv, dout = arrays
    calls: Calls = {}
    for name, peer in PEERS[dtype].items():
        which = getattr(SDPBackend, peer)
        leaves = [x.clone().requires_grad_() for x in qkv]
        try:
            with sdpa_kernel(which):
                result = scaled_dot_product_attention(*leaves, is_causal=causal)
            if pass_ == "backward":
                torch.autograd.grad(result, leaves, dout, retain_graph=True)
        except RuntimeError as error:
            print(f"{name} does not run this: {error}")
            continue

        def forward(which: Any = which) -> Any:
            with torch.no_grad(), sdpa_kernel(which):
                return scaled_dot_product_attention(*qkv, is_causal=causal)

        def backward(result: Any = result, leaves: Any = leaves) -> Any:
            return torch.autograd.grad(result, leaves, dout, retain_graph=True)

        calls[name] = forward if pass_ == "forward" else backward
    return calls


def device_arrays(shape: tuple[int, ...], dtype: str) -> list[Any]:
    """q, k, v, dout as tensors of torch."""
    torch = imported("torch")
    torch.manual_seed(0)
    return [torch.randn(shape, device="cuda", dtype=getattr(torch, dtype)) for _ in range(4)]


def device_calls(shape: tuple[int, ...], causal: bool, pass_: str, dtype: str) -> Calls:
    """Ours and torch's on the same tensors."""
    arrays = device_arrays(shape, dtype)
    return {
        **our_calls(arrays, causal, pass_, dtype), **torch_calls(arrays, causal, pass_, dtype)
    }  # fmt: skip


def device_seconds(call: Callable[[], Any]) -> float:
    """Of one call, between two events of the current stream."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(BUSY)  # so that the call is queued before its turn comes
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def host_calls(shape: tuple[int, ...], causal: bool, pass_: str, dtype: str) -> Calls:
    """For the emulator: that the driver works, not how fast anything is."""
    arrays = np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)
    if dtype == "bfloat16":
        arrays = arrays.astype(np.float16)  # NumPy's own 16-bit type
    emulated, cpu = (
        our_calls(arrays, causal, pass_, dtype, backend) for backend in ("cuda-emulated", "cpu")
    )
    return {**emulated, "cpu": next(iter(cpu.values()))}


def host_seconds(call: Callable[[], Any]) -> float:
    """Of one call, by the clock on the wall."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved(
    calls: Calls, seconds: Callable[..., float], warmups: int, runs: int
) -> dict[str, list[float]]:
    """A B C A B C ..: clocks and temperature drift alike for all."""
    for _ in range(warmups):
        for call in calls.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return times


def profiled_call(case: Case) -> None:
    """One pass of ours, on inputs that are random: what `profile` looks at."""
    import torch

    dim, seqlen, causal, pass_, dtype = case
    arrays = device_arrays(shape_of(dim, seqlen), dtype)
    next(iter(our_calls(arrays, causal, pass_, dtype).values()))()
    torch.cuda.synchronize()


def shape_of(dim: int, seqlen: int) -> tuple[int, ...]:
    """(batch, heads, seqlen, head_dim) of a case."""
    return (TOKENS // seqlen, max(1, WIDTH // dim), seqlen, dim)


def run_case(backend: str, case: dict[str, Any]) -> dict[str, Any]:
    """Medians of all contenders, in milliseconds and TFLOP/s."""
    (dim, seqlen, causal, pass_, dtype), runs = case["problem"], case["runs"]
    if backend == "cuda":
        shape = shape_of(dim, seqlen)
        times = interleaved(device_calls(shape, causal, pass_, dtype), device_seconds, 5, runs)
    else:
        shape = (1, 1, 65, 32)
        times = interleaved(host_calls(shape, causal, pass_, dtype), host_seconds, 1, 2)
    row: dict[str, Any] = {}
    for name, found in times.items():
        median = statistics.median(found)
        row[f"{name} ms"] = float(f"{median * 1e3:.4g}")
        row[f"{name} TFLOP/s"] = float(f"{work(shape, causal, pass_) / median / 1e12:.4g}")
    return row


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.timing``."""
    own = common.parser(__doc__, limit=60)
    own.add_argument("--runs", type=int, default=30)
    chosen = own.parse_args(arguments)
    cases = {
        name: {"problem": problem, "runs": chosen.runs}
        for name, problem in common.select(grid(), chosen).items()
    }
    return common.run_in_workers("benchmarks.gpu.timing", cases, chosen)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
