"""How fast is it beside cuDNN and FlashAttention-2? Interleaved with torch's back ends on one GPU.

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

TOKENS, WIDTH = 16384, 2048  # batch * seqlen and heads * head_dim of every case


def grid() -> dict[str, tuple[int, int, bool, str]]:
    """Names and (head_dim, seqlen, causal, pass); what others publish comes first."""
    return {
        f"d{dim}-s{seqlen}-{'causal' if causal else 'full'}-{pass_}": (dim, seqlen, causal, pass_)
        for seqlen in (8192, 2048, 512, 16384)
        for dim in (128, 64, 256, 96, 192)
        for causal in (True, False)
        for pass_ in ("forward", "backward")
    }


def work(shape: tuple[int, ...], causal: bool, pass_: str) -> float:
    """Floating-point operations by the convention above."""
    batch, heads, seqlen, dim = shape
    forward = 4.0 * batch * heads * seqlen * seqlen * dim * (0.5 if causal else 1.0)
    return forward * (2.5 if pass_ == "backward" else 1.0)


def torch_contenders(
    shape: tuple[int, ...], causal: bool, pass_: str
) -> dict[str, Callable[[], Any]]:
    """Ours and torch's on the same bfloat16 tensors."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    torch.manual_seed(0)
    q, k, v, dout = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    out, lse = attnext.attention(q, k, v, causal=causal, return_lse=True)
    contenders: dict[str, Callable[[], Any]] = {}
    if pass_ == "forward":
        contenders["attnext"] = lambda: attnext.attention(q, k, v, causal=causal)
    else:
        contenders["attnext"] = lambda: attnext.attention_backward(
            dout, q, k, v, out, lse, causal=causal
        )
    for name, which in (
        ("cuDNN", SDPBackend.CUDNN_ATTENTION), ("FlashAttention-2", SDPBackend.FLASH_ATTENTION),
    ):  # fmt: skip
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        try:
            with sdpa_kernel(which):
                result = scaled_dot_product_attention(*leaves, is_causal=causal)
        except RuntimeError as error:
            print(f"{name} does not run this: {error}")
            continue

        def forward(which: Any = which, arrays: Any = (q, k, v)) -> Any:
            with torch.no_grad(), sdpa_kernel(which):
                return scaled_dot_product_attention(*arrays, is_causal=causal)

        def backward(result: Any = result, leaves: Any = leaves) -> Any:
            return torch.autograd.grad(result, leaves, dout, retain_graph=True)

        contenders[name] = forward if pass_ == "forward" else backward
    return contenders


def device_seconds(call: Callable[[], Any]) -> float:
    """Of one call, between two events of the current stream."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def host_contenders(shape: tuple[int, ...], causal: bool) -> dict[str, Callable[[], Any]]:
    """For the emulator: that the driver works, not how fast anything is."""
    q, k, v = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    return {
        "emulated": lambda: attnext.attention(q, k, v, causal=causal, backend="cuda-emulated"),
        "cpu": lambda: attnext.attention(q, k, v, causal=causal),
    }


def host_seconds(call: Callable[[], Any]) -> float:
    """Of one call, by the clock on the wall."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved(
    contenders: dict[str, Callable[[], Any]], seconds: Callable[..., float], warmups: int, runs: int
) -> dict[str, list[float]]:
    """A B C A B C ..: clocks and temperature drift alike for all."""
    for _ in range(warmups):
        for call in contenders.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, call in contenders.items():
            times[name].append(seconds(call))
    return times


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.timing``."""
    own = common.parser(__doc__)
    own.add_argument("--runs", type=int, default=30)
    chosen = own.parse_args(arguments)
    is_real = chosen.backend == "cuda"

    def run(_: str, case: tuple[int, int, bool, str]) -> dict[str, Any]:
        dim, seqlen, causal, pass_ = case
        if is_real:
            shape = (TOKENS // seqlen, max(1, WIDTH // dim), seqlen, dim)
            times = interleaved(
                torch_contenders(shape, causal, pass_), device_seconds, 5, chosen.runs
            )
        else:
            shape = (1, 1, 65, 32)
            times = interleaved(host_contenders(shape, causal), host_seconds, 1, 2)
        row: dict[str, Any] = {"status": "ok"}
        for name, found in times.items():
            median = statistics.median(found)
            row[f"{name} ms"] = float(f"{median * 1e3:.4g}")
            row[f"{name} TFLOP/s"] = float(f"{work(shape, causal, pass_) / median / 1e12:.4g}")
        return row

    cases = common.select(grid(), chosen)
    return common.leave("timing", chosen, common.run_all(cases, chosen, run))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
