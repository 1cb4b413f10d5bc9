"""Do the same inputs give the same bits a thousand times? Forward and backward, all options on."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import numpy as np

import attnext

from . import common
from .correctness import to_dtype

CASES = {
    f"{kind}-d{dim}-{dtype}": (kind, dim, dtype)
    for kind in ("causal", "options", "decode")
    for dim in (64, 128, 256)
    for dtype in ("bfloat16", "float16", "float32")
}


def digests(kind: str, dim: int, dtype: str, repeats: int, backend: str) -> set[str]:
    """What the repeats gave, each only once."""
    rng = np.random.default_rng(0)
    rows, keys = (1, 3000) if kind == "decode" else (300, 300)
    q = to_dtype(rng.standard_normal((2, 4, rows, dim)), dtype)
    k, v = (to_dtype(rng.standard_normal((2, 2, keys, dim)), dtype) for _ in range(2))
    options: dict[str, Any] = {"causal": True, "backend": backend}
    if kind == "options":
        options |= {
            "dropout": 0.2, "seed": 1, "softcap": 5.0, "sinks": np.ones(4, np.float32),
            "bias": to_dtype(rng.standard_normal((1, 4, rows, keys)), dtype),
            "alibi_slopes": attnext.alibi_slopes(4),
        }  # fmt: skip
    found = set()
    for _ in range(repeats):
        out, lse = attnext.attention(q, k, v, return_lse=True, **options)
        grads = attnext.attention_backward(out, q, k, v, out, lse, **options)
        digest = hashlib.sha256()
        for array in (out, lse, *(grad for grad in grads if grad is not None)):
            digest.update(np.ascontiguousarray(array).view(np.uint8))
        found.add(digest.hexdigest())
    return found


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.determinism``."""
    own = common.parser(__doc__)
    own.add_argument("--repeats", type=int, default=1000)
    chosen = own.parse_args(arguments)

    def run(_: str, case: Any) -> dict[str, Any]:
        found = digests(*case, chosen.repeats, chosen.backend)
        status = "ok" if len(found) == 1 else "failed"
        return {"status": status, "repeats": chosen.repeats, "different results": len(found)}

    cases = common.select(CASES, chosen)
    return common.leave("determinism", chosen, common.run_all(cases, chosen, run))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
