"""Attention for PyTorch: operators with gradients, modules, and a provider of torch's own SDPA."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        'attnext.torch needs PyTorch: pip install "attnext[torch]"', name="torch"
    ) from error

from ..attention import AdditiveScore
from ..passes import AttentionStats
from ..threading_layer import share_with_torch
from .attention import attention
from .bidirectional import bidirectional_attention
from .inspection import attention_stats, attention_weights, dropout_mask, merge_attention
from .nn import (
    AdditiveAttention,
    AttentionPooling,
    BidirectionalAttention,
    CosineAttention,
    EuclideanAttention,
    GeneralAttention,
    MultiHeadAttention,
    SelfAttentionBlock,
    SinusoidalPositions,
)
from .pooling import attention_pool
from .positions import alibi_slopes, rotary, sinusoidal_positions
from .provider import SdpaOverride, has_registry, override_sdpa, register_sdpa
from .sdpa import scaled_dot_product_attention

__all__ = [
    "AdditiveAttention",
    "AdditiveScore",
    "AttentionPooling",
    "AttentionStats",
    "BidirectionalAttention",
    "CosineAttention",
    "EuclideanAttention",
    "GeneralAttention",
    "MultiHeadAttention",
    "SdpaOverride",
    "SelfAttentionBlock",
    "SinusoidalPositions",
    "alibi_slopes",
    "attention",
    "attention_pool",
    "attention_stats",
    "attention_weights",
    "bidirectional_attention",
    "dropout_mask",
    "merge_attention",
    "override_sdpa",
    "register_sdpa",
    "rotary",
    "scaled_dot_product_attention",
    "sinusoidal_positions",
]

if has_registry():
    register_sdpa()
share_with_torch()
