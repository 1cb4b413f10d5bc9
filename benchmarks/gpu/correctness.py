"""Is every kernel right on this device, at large sizes and tile edges? A grid against float64."""

from __future__ import annotations

import itertools
import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

import attnext

from . import common, problems

# Lengths beside tile edges, several tiles, and one where keys are split.
SEQLENS, HEAD_DIMS = (63, 64, 65, 129, 1000, 4096), (64, 96, 128, 192, 256)
ROWS = ("out", "dq", "dk", "dv")  # sums of random terms along a row, whose errors are judged by row


def grid() -> dict[str, dict[str, Any]]:
    """Names and problems: all there are, of which `common.spread` takes what time allows."""
    axes = {
        "dim": HEAD_DIMS, "seqlen": SEQLENS, "causal": (False, True), "group": (1, 4),
        "dtype": tuple(problems.DTYPES), "options": problems.OPTIONS,
    }  # fmt: skip
    cases = (dict(zip(axes, values)) for values in itertools.product(*axes.values()))
    return {name_of(case): case for case in cases}


def name_of(case: dict[str, Any]) -> str:
    """As "d64-s65-causal-gqa4-float16-plain"."""
    causal, kind = "causal" if case["causal"] else "full", f"{case['dtype']}-{case['options']}"
    return f"d{case['dim']}-s{case['seqlen']}-{causal}-gqa{case['group']}-{kind}"


def allowed_by_row(truth: Any, dtype: str, lse: Any, num_keys: int) -> Any:
    """How large the error of each row may be, as a length.

    A kernel rounds weights (or their gradients) and the result to the type of its inputs: each
    costs a row of random terms at most half a unit of its own length, that is one unit together,
    spread over the row. Sums and exponents in float32 cost as in `tests/tolerance.py`; where a row
    of gradients cancels, relative to the longest row.
    """
    from tolerance import ROUNDING, largest

    accumulated = ROUNDING["float64" if dtype == "float64" else "float32"]
    of_sums = 2 * accumulated * (2 + 2 * largest(lse) + num_keys**0.5 / 2)
    length = np.linalg.norm(truth, axis=-1)
    return (ROUNDING[dtype] + of_sums) * length + of_sums * length.max(initial=0)


def check_rows(name: str, actual: Any, truth: Any, dtype: str, lse: Any, num_keys: int) -> float:
    """Raise where a row is worse than its roundings; returns the largest part of what it may."""
    truth = np.asarray(truth, np.float64)
    length = np.linalg.norm(np.asarray(actual).astype(np.float64) - truth, axis=-1)
    allowed = allowed_by_row(truth, dtype, lse, num_keys)
    # A row without keys is 0 exactly; NaN is at no time as good as allowed.
    wrong = np.argwhere(~(length <= allowed))
    if len(wrong):
        row = tuple(int(i) for i in wrong[0])
        raise AssertionError(
            f"{name}: {len(wrong)} of {length.size} rows are wrong, the first {row}: error "
            f"{length[row]:.3g}, allowed {allowed[row]:.3g}"
        )
    return float(f"{(length / np.maximum(allowed, 1e-300)).max(initial=0):.2g}")


def passes(x: SimpleNamespace, backend: str, given: Any = None) -> dict[str, Any]:
    """Forward and backward by name; `given` replaces the out and lse that backward starts from."""
    options = {**x.options, "backend": backend}
    out, lse = attnext.attention(x.q, x.k, x.v, return_lse=True, **options)
    grads = attnext.attention_backward(x.dout, x.q, x.k, x.v, *(given or (out, lse)), **options)
    there = {key: value for key, value in grads._asdict().items() if value is not None}
    return {"out": out, "lse": lse, **there}


def run_case(backend: str, case: dict[str, Any]) -> dict[str, Any]:
    """Forward and backward of one problem; raises where they are worse than their roundings."""
    from tolerance import check

    x, dtype = problems.make(case), case["dtype"].removesuffix("-fast")
    problems.set_precision(case["dtype"])
    actual = passes(x, backend)
    # attnext's own float64 kernels are the yardstick: the definition would take minutes at 4096.
    # Their backward starts from the same out and lse: how these were rounded is no fault of it.
    options = {key: problems.wide(value) for key, value in x.options.items()}
    arrays = {name: problems.wide(getattr(x, name)) for name in ("q", "k", "v", "dout")}
    exact = SimpleNamespace(**arrays, options=options)
    truth = passes(exact, "cpu", [problems.wide(actual[name]) for name in ("out", "lse")])
    theirs: dict[str, Any] = {}
    num_keys, result = x.k.shape[-3 if "layout" in x.options else -2], {}
    for name, found in actual.items():
        if name in ROWS:
            result[name] = check_rows(name, found, truth[name], dtype, truth["lse"], num_keys)
            continue
        theirs = theirs or passes(x, "cpu")  # instead of the naive formula, for the same reason
        check(name, found, truth[name], theirs[name], x, lse=truth["lse"])
    return result


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.correctness``."""
    own = common.parser(__doc__, limit=60, jobs=8)
    own.add_argument("--cases", type=int, default=400, help="how many, spread over the grid")
    own.add_argument("--case", help="one problem as JSON, in this process")
    chosen = own.parse_args(arguments)
    if chosen.case:
        print(json.dumps(run_case(chosen.backend, json.loads(chosen.case))))
        return 0
    named = {name: case for name, case in grid().items() if chosen.only in name}
    cases = common.spread(named, 4 if chosen.quick else chosen.cases)
    return common.run_in_workers("benchmarks.gpu.correctness", cases, chosen)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
