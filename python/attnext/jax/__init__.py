"""attnext inside JAX: its functions for `jax.jit`, `jax.grad`, `jax.vmap` and `jax.shard_map`."""

try:
    import jax as _jax  # noqa: F401  (to say at once what is missing)
except ModuleNotFoundError as _error:
    if _error.name not in ("jax", "jaxlib"):
        raise
    raise ImportError(
        'attnext.jax needs JAX: pip install "attnext[jax]"', name=_error.name
    ) from _error

from attnext.attention import AdditiveScore
from attnext.passes import AttentionStats, dropout_mask

from .attention import attention
from .bidirectional import bidirectional_attention
from .dot_product_attention import dot_product_attention
from .merging import merge_attention
from .pooling import attention_pool
from .positions import alibi_slopes, rotary, sinusoidal_positions
from .weights import attention_stats, attention_weights

__all__ = [
    "AdditiveScore",
    "AttentionStats",
    "alibi_slopes",
    "attention",
    "attention_pool",
    "attention_stats",
    "attention_weights",
    "bidirectional_attention",
    "dot_product_attention",
    "dropout_mask",
    "merge_attention",
    "rotary",
    "sinusoidal_positions",
]
