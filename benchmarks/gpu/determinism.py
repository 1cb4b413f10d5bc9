"""Do the same inputs give the same bits every time? All passes, all options, on device arrays."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import attnext

from . import common, problems
from .libraries import Torch
from .worker import Row, Skipped

CASES = {
    f"{kind}-d{dim}-{dtype}": {"options": kind, "dim": dim, "dtype": dtype}
    for dim in (64, 128, 256)
    for kind in ("plain", "everything", "decode")
    for dtype in ("bfloat16", "float16", "float32", "float32-fast")
}


def caller(case: Row, backend: str) -> tuple[Callable[[], list[Any]], Callable[[Any, Any], bool]]:
    """A call of forward and backward, and whether two of its results have the same bytes.

    On tensors of torch where there are any on the device: then nothing is copied between calls.
    """
    seqlen = 3000 if case["options"] == "decode" else 300
    x = problems.make({"seqlen": seqlen, "causal": True, "group": 2, **case})
    arrays, options = [x.q, x.k, x.v, x.dout], dict(x.options)
    where: str | None = backend
    try:
        library = Torch() if backend == "cuda" else None
    except Skipped:
        library = None
    if library:
        where = None
        arrays = [library.array(array) for array in arrays]
        options |= {key: library.array(options[key]) for key in ("mask", "bias") if key in options}

    def as_bytes(array: Any) -> Any:
        is_host = isinstance(array, np.ndarray)
        array = np.ascontiguousarray(array) if is_host else array.contiguous()
        return array.view(np.uint8 if is_host else library.torch.uint8)

    def call() -> list[Any]:
        q, k, v, dout = arrays
        out, lse = attnext.attention(q, k, v, return_lse=True, backend=where, **options)
        grads = attnext.attention_backward(dout, q, k, v, out, lse, backend=where, **options)
        return [as_bytes(array) for array in (out, lse, *grads) if array is not None]

    def is_same(ours: Any, theirs: Any) -> bool:
        is_host = isinstance(ours, np.ndarray)
        return bool((np.array_equal if is_host else library.torch.equal)(ours, theirs))

    return call, is_same


def run_case(backend: str, case: Row) -> Row:
    """Repeat as often as asked, or as the time allows: `repeats` says how often it was."""
    problems.set_precision(case["dtype"])
    repeats, seconds = case.pop("repeats"), case.pop("seconds")
    call, is_same = caller(case, backend)
    first, end, done = call(), time.monotonic() + seconds, 0
    while done < repeats and (done < 2 or time.monotonic() < end):
        for number, pair in enumerate(zip(first, call())):
            if not is_same(*pair):
                raise AssertionError(f"result {number} has other bits in repeat {done}")
        done += 1
    return {"repeats": done}


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.determinism``."""
    own = common.parser(__doc__, limit=40)
    own.add_argument("--repeats", type=int, default=1000)
    own.add_argument("--seconds", type=float, default=6, help="after which a case repeats no more")
    chosen = own.parse_args(arguments)
    cases = {
        name: {**case, "repeats": chosen.repeats, "seconds": chosen.seconds}
        for name, case in common.select(CASES, chosen).items()
    }
    return common.run_in_workers("benchmarks.gpu.determinism", cases, chosen)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
