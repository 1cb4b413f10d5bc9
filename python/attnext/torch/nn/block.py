"""What is a transformer built of? Attention and a perceptron, each normalised and added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .multi_head import MultiHeadAttention
from .parts import require_positive


class SelfAttentionBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + perceptron(norm(x))``: a pre-norm transformer block.

    Parameters
    ----------
    embed_dim, num_heads : int
        Of the attention.
    hidden_dim : int, optional
        Of the perceptron; None: ``4 * embed_dim``.
    dropout : float
        Of the attention weights and of what is added, while training.
    activation : callable
        Of the perceptron, for example ``torch.nn.functional.gelu``.
    norm_eps : float
        Of the layer norms.
    device, dtype : optional
        Of the parameters.
    **attention
        The other parameters of `MultiHeadAttention`.

    Raises
    ------
    ValueError, TypeError
        As in `MultiHeadAttention`.

    Notes
    -----
    Norms before, not after: Xiong et al. (2020).

    Examples
    --------
    >>> import torch, attnext.torch
    >>> block = attnext.torch.SelfAttentionBlock(32, 4, causal=True, positions="rotary")
    >>> block(torch.randn(2, 10, 32)).shape
    torch.Size([2, 10, 32])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        hidden_dim: int | None = None,
        dropout: float = 0.0,
        activation: Callable[[torch.Tensor], torch.Tensor] = nn.functional.gelu,
        norm_eps: float = 1e-5,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **attention: Any,
    ) -> None:
        super().__init__()
        require_positive("SelfAttentionBlock", embed_dim=embed_dim, hidden_dim=hidden_dim)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        hidden_dim = 4 * embed_dim if hidden_dim is None else hidden_dim
        self.attention_norm = nn.LayerNorm(embed_dim, norm_eps, **factory)
        self.attention = MultiHeadAttention(
            embed_dim, num_heads, dropout=dropout, **factory, **attention
        )
        self.hidden_norm = nn.LayerNorm(embed_dim, norm_eps, **factory)
        self.hidden = nn.Linear(embed_dim, hidden_dim, **factory)
        self.out = nn.Linear(hidden_dim, embed_dim, **factory)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: torch.Tensor, *, return_weights: bool = False, rows: Any = None, **options: Any
    ) -> Any:
        """Attend and think.

        Parameters
        ----------
        x : Tensor (B, S, embed_dim)
            Or (S, B, embed_dim), see `MultiHeadAttention`.
        return_weights, rows
            See `MultiHeadAttention`.
        **options
            mask, bias, q_lengths, kv_lengths, q_offset of `MultiHeadAttention`.

        Returns
        -------
        out : Tensor like x
        weights : Tensor (B, num_heads, len(rows), S)
            Only with `return_weights` or `rows`.

        Raises
        ------
        ValueError, TypeError
            As in `MultiHeadAttention`.
        """
        attended = self.attention(
            self.attention_norm(x), return_weights=return_weights, rows=rows, **options
        )
        has_weights = isinstance(attended, tuple)
        gathered, weights = attended if has_weights else (attended, None)
        x = x + self.dropout(gathered)
        hidden = self.dropout(self.activation(self.hidden(self.hidden_norm(x))))
        x = x + self.dropout(self.out(hidden))
        return (x, weights) if has_weights else x
