"""How fast is attention at a shape of yours? ``python -m attnext bench --shape 1,8,2048,64``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import attnext

DTYPES = ("float64", "float32", "float16", "bfloat16")
Call = Callable[[], object]
REST, TURN = 0.03, 0.1  # seconds
SCORES = ("dot", "cosine", "neg_l2", "neg_sq_l2", "additive")


class Work(NamedTuple):
    """What is timed: the name of a shape, not of a machine."""

    batch: int
    heads: int
    seqlen: int
    head_dim: int
    seqlen_k: int
    kv_heads: int
    dtype: str
    score: str
    causal: bool
    window: tuple[int, ...] | None
    backward: bool

    def visible_pairs(self) -> int:
        """The number of (query, key) pairs of one head that attend, and so cost something."""
        centre = np.arange(self.seqlen) + self.seqlen_k - self.seqlen
        left, right = self.window or (-1, -1)
        if self.causal:
            right = 0
        first = np.zeros_like(centre) if left < 0 else np.maximum(centre - left, 0)
        last = np.full_like(centre, self.seqlen_k) if right < 0 else centre + right + 1
        return int(np.maximum(np.clip(last, 0, self.seqlen_k) - first, 0).sum())

    def flops(self) -> int:
        """Multiplications and additions: two products forward, five backward."""
        forward = 4 * self.batch * self.heads * self.visible_pairs() * self.head_dim
        return forward * 5 // 2 if self.backward else forward


class Timing(NamedTuple):
    """Seconds of one call, over all repetitions."""

    best: float
    median: float
    calls: int


def parse(argv: list[str] | None) -> tuple[Work, argparse.Namespace]:
    """The work and the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m attnext bench", description="Time attention at one shape."
    )
    parser.add_argument("--shape", type=_integers(4), default=(1, 8, 2048, 64), metavar="B,H,S,D")
    parser.add_argument("--kv-heads", type=int, help="heads of k and v (default: H)")
    parser.add_argument("--seqlen-k", type=int, help="keys (default: S); S = 1 is decoding")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--score", choices=SCORES, default="dot")
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--window", type=_integers(2), metavar="LEFT,RIGHT", help="-1 is open")
    parser.add_argument("--backward", action="store_true", help="time the backward pass")
    parser.add_argument("--threads", type=int, help="default: as attnext finds it")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each library (2)")
    parser.add_argument("--no-torch", action="store_true", help="do not time PyTorch beside it")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args(argv)
    batch, heads, seqlen, head_dim = options.shape
    work = Work(
        batch, heads, seqlen, head_dim, options.seqlen_k or seqlen, options.kv_heads or heads,
        options.dtype, options.score, options.causal, options.window, options.backward,
    )  # fmt: skip
    if min(work[:6]) < 1 or heads % work.kv_heads:
        parser.error("sizes must be positive and --kv-heads must divide H")
    if not options.seconds > 0:
        parser.error(f"--seconds must be positive, found {options.seconds}")
    return work, options


def _integers(count: int) -> Callable[[str], tuple[int, ...]]:
    def integers(text: str) -> tuple[int, ...]:
        numbers = tuple(int(part) for part in text.split(","))
        if len(numbers) != count:
            raise argparse.ArgumentTypeError(f"{count} integers joined by commas, found {text!r}")
        return numbers

    return integers


def main(argv: list[str] | None = None) -> int:
    """Time the work and print what was seen."""
    work, options = parse(argv)
    if options.threads:
        attnext.set_num_threads(options.threads)
    try:
        arrays = _arrays(work)
    except ImportError:
        print("bfloat16 needs ml_dtypes: pip install ml_dtypes", file=sys.stderr)
        return 2
    calls = {"attnext": _attnext_call(work, arrays)}
    why_no_torch = _why_no_torch(work, options)
    if why_no_torch is None:
        calls["torch"] = _torch_call(work, arrays, attnext.get_num_threads())
    timings = time_in_turns(calls, options.seconds)
    report = {
        "work": work._asdict() | {"flops": work.flops()},
        "threads": attnext.get_num_threads(),
        "kernel": attnext.explain(*arrays[:3], **_attnext_options(work)),
        "timings": {name: timing._asdict() for name, timing in timings.items()},
    }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _print_table(work, report, timings, why_no_torch)
    return 0


def time_in_turns(calls: dict[str, Call], seconds: float) -> dict[str, Timing]:
    """Time calls in turns A B A B ..., so that what slows the machine down slows them all.

    Before each turn is a rest: the threads of whoever came before spin for a while in case of
    another call, and would hold the cores.
    """
    for call in calls.values():
        call()
    spent: dict[str, list[float]] = {name: [] for name in calls}
    while not all(sum(times) >= seconds and len(times) >= 3 for times in spent.values()):
        for name, call in calls.items():
            time.sleep(REST)
            call()
            spent[name] += _time_turn(call)
    return {
        name: Timing(min(times), float(np.median(times)), len(times))
        for name, times in spent.items()
    }


def _time_turn(call: Call) -> list[float]:
    """The seconds of as many calls as fill a turn."""
    times: list[float] = []
    while sum(times) < TURN:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


def _arrays(work: Work) -> list[Any]:
    """q, k, v and dout, standard normal."""
    dtype = np.dtype(work.dtype) if work.dtype != "bfloat16" else _bfloat16()
    random = np.random.default_rng(0)
    shape_q = (work.batch, work.heads, work.seqlen, work.head_dim)
    shape_k = (work.batch, work.kv_heads, work.seqlen_k, work.head_dim)
    return [
        random.standard_normal(shape, np.float32).astype(dtype)
        for shape in (shape_q, shape_k, shape_k, shape_q)
    ]


def _bfloat16() -> Any:
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def _attnext_options(work: Work) -> dict[str, Any]:
    score: Any = work.score
    if score == "additive":
        score = attnext.AdditiveScore(np.ones(work.head_dim, np.float32))
    scale = {"dot": None, "cosine": 10.0}.get(work.score, 1.0)
    return {"score": score, "scale": scale, "causal": work.causal, "window": work.window}


def _attnext_call(work: Work, arrays: list[Any]) -> Call:
    q, k, v, dout = arrays
    options = _attnext_options(work)
    if not work.backward:
        return lambda: attnext.attention(q, k, v, **options)
    out, lse = attnext.attention(q, k, v, return_lse=True, **options)
    return lambda: attnext.attention_backward(dout, q, k, v, out, lse, **options)


def _why_no_torch(work: Work, options: argparse.Namespace) -> str | None:
    """Why PyTorch is not timed beside it; None if it is."""
    if options.no_torch:
        return "not asked for"
    if work.score != "dot":
        return f"it has no {work.score} score"
    if work.window is not None or (work.causal and work.seqlen != work.seqlen_k):
        return "it has no such mask"
    if importlib.util.find_spec("torch") is None:
        return "not installed"
    return None


def _torch_call(work: Work, arrays: list[Any], threads: int) -> Call:
    import torch

    torch.set_num_threads(threads)
    dtype = getattr(torch, work.dtype)
    q, k, v, dout = (torch.from_numpy(array.astype(np.float32)).to(dtype) for array in arrays)
    attend = torch.nn.functional.scaled_dot_product_attention
    options: dict[str, Any] = {"is_causal": work.causal, "enable_gqa": work.heads != work.kv_heads}
    if not work.backward:
        return lambda: attend(q, k, v, **options)
    for tensor in (q, k, v):
        tensor.requires_grad_()
    out = attend(q, k, v, **options)
    return lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)


def _print_table(
    work: Work, report: dict[str, Any], timings: dict[str, Timing], why_no_torch: str | None
) -> None:
    kind = "backward" if work.backward else "forward"
    mask = " causal" if work.causal else ""
    mask += f" window {work.window}" if work.window else ""
    print(f"  {kind}  B {work.batch}  H {work.heads}/{work.kv_heads}  S {work.seqlen}"
          f"/{work.seqlen_k}  D {work.head_dim}  {work.dtype}  {work.score}{mask}")  # fmt: skip
    print(f"  {report['work']['flops'] / 1e9:.3f} GFLOP, {report['threads']} threads")
    facts = ", ".join(f"{name} {fact}" for name, fact in report["kernel"].items())
    print(textwrap.fill(f"kernel: {facts}", 98, initial_indent="  ", subsequent_indent=" " * 10))
    print()
    print(f"  {'':<10}{'best':>12}{'median':>12}{'GFLOP/s':>10}{'tokens/s':>13}{'calls':>8}")
    for name, timing in timings.items():
        rate = report["work"]["flops"] / timing.best / 1e9
        tokens = work.batch * work.seqlen / timing.best
        print(f"  {name:<10}{_duration(timing.best):>12}{_duration(timing.median):>12}"
              f"{rate:>10.1f}{tokens:>13,.0f}{timing.calls:>8}")  # fmt: skip
    if why_no_torch is not None:
        print(f"  {'torch':<10}{'-':>12}   {why_no_torch}")
    else:
        ratio = timings["torch"].best / timings["attnext"].best
        print(f"\n  attnext takes 1/{ratio:.2f} of torch's time" if ratio >= 1
              else f"\n  attnext takes {1 / ratio:.2f} times torch's time")  # fmt: skip


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.3f} s"
    return f"{seconds * 1e3:.3f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"
