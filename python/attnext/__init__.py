"""Exact attention, forward and backward, for arrays of any library: what there is, by name."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from . import _core, threads
from .attention import AdditiveScore, attention
from .backends import Backend, backends, get_cmake_dir, get_include
from .bidirectional import (
    BidirectionalGrads,
    bidirectional_attention,
    bidirectional_attention_backward,
)
from .gradients import AttentionGrads, attention_backward, attention_vjp
from .passes import (
    AttentionStats,
    attention_stats,
    attention_weights,
    dropout_mask,
    explain,
    merge_attention,
)
from .pooling import PoolGrads, attention_pool, attention_pool_backward
from .positions import alibi_slopes, rotary, rotary_backward, sinusoidal_positions
from .precision import get_float32_precision, set_float32_precision
from .threading_layer import get_threading_layer, set_threading_layer
from .threads import get_num_threads, num_threads, register_threadpoolctl, set_num_threads

__version__ = _core.version()

__all__ = [
    "AdditiveScore",
    "AttentionGrads",
    "AttentionStats",
    "Backend",
    "BidirectionalGrads",
    "PoolGrads",
    "alibi_slopes",
    "attention",
    "attention_backward",
    "attention_pool",
    "attention_pool_backward",
    "attention_stats",
    "attention_vjp",
    "attention_weights",
    "backends",
    "bidirectional_attention",
    "bidirectional_attention_backward",
    "dropout_mask",
    "explain",
    "get_cmake_dir",
    "get_float32_precision",
    "get_include",
    "get_num_threads",
    "get_threading_layer",
    "merge_attention",
    "num_threads",
    "reference",
    "register_threadpoolctl",
    "rotary",
    "rotary_backward",
    "set_float32_precision",
    "set_num_threads",
    "set_threading_layer",
    "sinusoidal_positions",
]

if os.environ.get("ATTNEXT_LOG"):
    import_module("attnext.log").configure()
threads.register_if_imported()


def __getattr__(name: str) -> Any:
    # Imported on first use: most programs never ask for the definition.
    if name == "reference":
        return import_module("attnext.reference")
    raise AttributeError(f"module 'attnext' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "reference"]
