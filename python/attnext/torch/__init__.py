"""Attention for PyTorch: operators with gradients, modules, and a provider of torch's own SDPA."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        'attnext.torch needs PyTorch: pip install "attnext[torch]"', name="torch"
    ) from error

from ..attention import AdditiveScore
from .attention import attention

__all__ = [
    "AdditiveScore",
    "attention",
]
