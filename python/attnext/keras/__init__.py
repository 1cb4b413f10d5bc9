"""attnext inside Keras 3: its layers of attention, on PyTorch, JAX, TensorFlow or NumPy."""

try:
    import keras as _keras  # noqa: F401  (to say at once what is missing)
except ModuleNotFoundError as _error:
    if _error.name != "keras":
        raise
    raise ImportError(
        'attnext.keras needs Keras: pip install "attnext[keras]"', name=_error.name
    ) from _error

from .attention import AdditiveAttention, Attention
from .multi_head_attention import MultiHeadAttention

__all__ = ["AdditiveAttention", "Attention", "MultiHeadAttention"]
