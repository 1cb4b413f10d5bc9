"""Which modules are there for torch? One for each kind of attention, with its parameters."""

from .block import SelfAttentionBlock
from .multi_head import MultiHeadAttention
from .pair import BidirectionalAttention
from .pool import AttentionPooling
from .scored import AdditiveAttention, CosineAttention, EuclideanAttention, GeneralAttention
from .sinusoidal import SinusoidalPositions

__all__ = [
    "AdditiveAttention",
    "AttentionPooling",
    "BidirectionalAttention",
    "CosineAttention",
    "EuclideanAttention",
    "GeneralAttention",
    "MultiHeadAttention",
    "SelfAttentionBlock",
    "SinusoidalPositions",
]
