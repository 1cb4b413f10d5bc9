"""Which problems do the drivers compute? Shapes beside tile edges, every option, at random."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

import attnext

from .common import ROOT

sys.path.insert(0, str(ROOT / "tests"))  # what a result may differ by is decided there

# "float32-fast" is by three products of tf32.
DTYPES = {
    "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32), "float32-fast": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}  # fmt: skip
OPTIONS = (
    "plain", "mask", "bias", "bias-heads", "dropout", "softcap", "sinks", "alibi", "scale",
    "window", "lengths", "packed", "decode", "cosine", "everything",
)  # fmt: skip
DECODED = 3  # queries of a decode step
ARRAYS = ("mask", "bias", "bias-heads", "sinks", "alibi", "scale")
EVERYTHING = ("mask", "bias", "dropout", "softcap", "sinks", "alibi", "scale", "lengths")


def make(case: dict[str, Any]) -> SimpleNamespace:
    """The arrays and options of a case, which names seqlen, dim, causal, group, dtype, options."""
    rng, dtype, kind = np.random.default_rng(0), DTYPES[case["dtype"]], case["options"]
    rows, keys, dim = case["seqlen"], case["seqlen"], case["dim"]
    batch, heads_kv = (1, 1) if keys > 1000 else (2, 2)
    heads = heads_kv * case["group"]
    if kind == "decode":
        rows = min(DECODED, rows)
    options: dict[str, Any] = {"causal": case["causal"]}
    for name in EVERYTHING if kind == "everything" else (kind,):
        options |= drawn_option(name, rng, (batch, heads, rows, keys), dtype)
    shapes = [(batch, heads, rows, dim)] * 2 + [(batch, heads_kv, keys, dim)] * 2
    q, dout, k, v = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    if kind == "packed":
        options |= packed_at(keys)
        # (batch, heads, seqlen, dim) to (tokens, heads, dim), of the first of the batch.
        q, dout, k, v = (np.ascontiguousarray(x[0].swapaxes(0, 1)) for x in (q, dout, k, v))
    return SimpleNamespace(q=q, k=k, v=v, dout=dout, options=options)


def drawn_option(name: str, rng: Any, shape: tuple[int, ...], dtype: Any) -> dict[str, Any]:
    """The keyword arguments of one option."""
    batch, heads, rows, keys = shape
    statistic = np.float64 if dtype == np.float64 else np.float32
    if name in ARRAYS:
        by_pair = (1, 1, rows, keys)
        sizes = {"mask": by_pair, "bias": by_pair, "bias-heads": (1, heads, 1, keys)}
        array = rng.standard_normal(sizes.get(name, (heads,)))
        positive = (0.5 + array**2).astype(statistic)
        return {
            "mask": {"mask": array > -0.6}, "bias": {"bias": array.astype(dtype)},
            "bias-heads": {"bias": array.astype(dtype)}, "sinks": {"sinks": positive},
            "alibi": {"alibi_slopes": 0.1 * positive}, "scale": {"scale": 0.1 * positive},
        }[name]  # fmt: skip
    lengths = [keys - keys // 3, max(1, keys // 5)][:batch]
    return {
        "dropout": {"dropout": 0.3, "seed": 2**40 + 7}, "softcap": {"softcap": 2.0},
        "window": {"window": (keys // 4, keys // 8)}, "cosine": {"score": "cosine", "scale": 4.0},
        "lengths": {"kv_lengths": np.array(lengths, np.int32)},
    }.get(name, {})  # fmt: skip


def packed_at(total: int) -> dict[str, Any]:
    """Four sequences, one of them empty."""
    ends = np.array([0, total // 7, total // 7, total // 2, total], np.int32)
    return {"layout": "thd", "cu_seqlens_q": ends, "cu_seqlens_k": ends}


def set_precision(dtype: str) -> None:
    """As the name of a dtype of ours says; the CPU does not ask."""
    attnext.set_float32_precision("fast" if dtype.endswith("fast") else "exact")


def wide(x: Any) -> Any:
    """A float array in float64, anything else as it is."""
    is_float = isinstance(x, np.ndarray) and x.dtype in DTYPES.values()
    return x.astype(np.float64) if is_float else x
