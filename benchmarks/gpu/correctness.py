"""Is every kernel right on this device? A grid against float64, each case with a time limit."""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

import numpy as np

import attnext

from . import common

# Lengths beside tile edges, several tiles, and one where keys are split.
SEQLENS, HEAD_DIMS = (63, 64, 65, 129, 1000, 4096), (64, 96, 128, 192, 256)


def grid() -> dict[str, dict[str, Any]]:
    """Names and problems; small and large alternate, so that a budget cuts both alike."""
    cases = {}
    for seqlen, dim, causal, group, dtype in itertools.product(
        SEQLENS, HEAD_DIMS, (False, True), (1, 4), ("float16", "bfloat16", "float32")
    ):
        if dtype == "float32" and seqlen > 1000:
            continue
        name = f"d{dim}-s{seqlen}-{'causal' if causal else 'full'}-gqa{group}-{dtype}"
        cases[name] = {
            "seqlen": seqlen, "dim": dim, "causal": causal, "group": group, "dtype": dtype,
        }  # fmt: skip
    return cases


def to_dtype(array: Any, dtype: str) -> Any:
    """`array` rounded to a dtype by name."""
    if dtype != "bfloat16":
        return array.astype(dtype)
    import ml_dtypes

    return array.astype(ml_dtypes.bfloat16)


def errors(actual: Any, naive: Any, truth: Any) -> tuple[float, float]:
    """The largest error of ours and of the naive formula, relative to the largest value."""
    size = float(np.abs(truth).max()) or 1.0
    ours, theirs = (
        float(np.abs(np.asarray(x, np.float64) - truth).max()) / size for x in (actual, naive)
    )
    return ours, theirs


def run_case(backend: str, case: dict[str, Any]) -> dict[str, Any]:
    """Forward and backward of one problem; raises where they are worse than the formula earns."""
    rng = np.random.default_rng(0)
    heads, seqlen, dim = 2 * case["group"], case["seqlen"], case["dim"]
    q, dout = (
        to_dtype(rng.standard_normal((1, heads, seqlen, dim)), case["dtype"]) for _ in range(2)
    )
    k, v = (to_dtype(rng.standard_normal((1, 2, seqlen, dim)), case["dtype"]) for _ in range(2))
    options = {"causal": case["causal"]}
    out, lse = attnext.attention(q, k, v, return_lse=True, backend=backend, **options)
    grads = attnext.attention_backward(dout, q, k, v, out, lse, backend=backend, **options)
    wide = [x.astype(np.float64) for x in (dout, q, k, v)]
    # attnext's own float64 kernels are the yardstick: the definition would take minutes at 4096.
    truth_out, vjp = attnext.attention_vjp(*wide[1:], backend="cpu", **options)
    truth = (truth_out, *vjp(wide[0])[:3])
    # What one rounding of p and ds to the inputs' type may cost, twice.
    eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-20}[case["dtype"]]
    result = {}
    for name, actual, exact in zip(("out", "dq", "dk", "dv"), (out, *grads[:3]), truth):
        rounded = to_dtype(exact, case["dtype"])
        ours, _ = errors(actual, rounded, exact)
        result[name] = float(f"{ours:.2e}")
        if not ours <= 3 * eps:
            raise AssertionError(f"{name}: relative error {ours:.3g}, allowed {3 * eps:.3g}")
    return result


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.correctness``."""
    own = common.parser(__doc__)
    own.add_argument("--case", help="one problem as JSON, in this process")
    chosen = own.parse_args(arguments)
    if chosen.case:
        print(json.dumps(run_case(chosen.backend, json.loads(chosen.case))))
        return 0
    cases = common.select(grid(), chosen)
    return common.leave("correctness", chosen, common.run_all(cases, chosen, lambda _, case: (
        common.run_alone(
            "benchmarks.gpu.correctness",
            ["--backend", chosen.backend, "--case", json.dumps(case)], chosen.limit,
        )
    )))  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
