"""How are two sequences matched? By one score matrix that both attend each other with."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..bidirectional import bidirectional_attention
from .parts import drawn, looked_at, require_positive, require_probability, require_sequences


class BidirectionalAttention(nn.Module):
    """Each of two sequences gathers from the other, by one score matrix (Lu et al., 2016).

    Parameters
    ----------
    x_dim, y_dim : int
        Of the vectors of the two sequences.
    num_heads : int
        Of both.
    head_dim : int, optional
        None: ``x_dim // num_heads``.
    bias : bool
        Of the projections.
    dropout : float
        Of the attention weights, while training; each direction draws its own.
    device, dtype : optional
        Of the parameters.

    Raises
    ------
    ValueError, TypeError
        Sizes that do not divide, or a dropout that is no probability.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> match = attnext.torch.BidirectionalAttention(16, 12, num_heads=2)
    >>> question, passage = torch.randn(3, 5, 16), torch.randn(3, 20, 12)
    >>> to_question, to_passage = match(question, passage)
    >>> to_question.shape, to_passage.shape
    (torch.Size([3, 5, 16]), torch.Size([3, 20, 12]))
    """

    def __init__(
        self,
        x_dim: int,
        y_dim: int,
        num_heads: int = 1,
        *,
        head_dim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = "BidirectionalAttention"
        require_positive(name, x_dim=x_dim, y_dim=y_dim, num_heads=num_heads, head_dim=head_dim)
        require_probability(name, dropout)
        if head_dim is None and x_dim % num_heads:
            raise ValueError(
                f"{name}: x_dim must be a multiple of num_heads {num_heads} unless head_dim is "
                f"given, found {x_dim}"
            )
        self.x_dim, self.y_dim, self.num_heads, self.dropout = x_dim, y_dim, num_heads, dropout
        width = x_dim if head_dim is None else num_heads * head_dim
        factory = {"device": device, "dtype": dtype}
        self.x_proj = nn.Linear(x_dim, width, bias, **factory)
        self.y_proj = nn.Linear(y_dim, width, bias, **factory)
        self.x_value_proj = nn.Linear(x_dim, width, bias, **factory)
        self.y_value_proj = nn.Linear(y_dim, width, bias, **factory)
        self.x_out_proj = nn.Linear(width, x_dim, bias, **factory)
        self.y_out_proj = nn.Linear(width, y_dim, bias, **factory)

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        *,
        mask: torch.Tensor | None = None,
        x_lengths: torch.Tensor | None = None,
        y_lengths: torch.Tensor | None = None,
        return_weights: bool = False,
    ) -> tuple[torch.Tensor, ...]:
        """Attend each other.

        Parameters
        ----------
        x : Tensor (B, Sx, x_dim)
            One sequence.
        y : Tensor (B, Sy, y_dim)
            The other.
        mask : bool Tensor broadcastable to (B, num_heads, Sx, Sy), optional
            True: the pair may attend each other.
        x_lengths, y_lengths : integer Tensor (B,), optional
            How much of each padded sequence exists.
        return_weights : bool
            Also return the weights of both directions.

        Returns
        -------
        x_out : Tensor like x
            What each x gathered from the ys.
        y_out : Tensor like y
            What each y gathered from the xs.
        x_weights, y_weights : Tensor (B, num_heads, Sx, Sy), (B, num_heads, Sy, Sx)
            Only with `return_weights`: before dropout, without a gradient.

        Raises
        ------
        ValueError, TypeError
            Shapes that do not fit; otherwise as in `bidirectional_attention`.
        """
        require_sequences("BidirectionalAttention", {"x": (x, self.x_dim), "y": (y, self.y_dim)})
        q, k, v_q, v_k = (
            project(sequence).unflatten(-1, (self.num_heads, -1))
            for project, sequence in (
                (self.x_proj, x), (self.y_proj, y), (self.x_value_proj, x), (self.y_value_proj, y)
            )
        )  # fmt: skip
        options: dict[str, Any] = {"mask": mask, "q_lengths": x_lengths, "kv_lengths": y_lengths}
        x_heads, y_heads = bidirectional_attention(
            q, k, v_q, v_k, layout="bshd", **options,
            **drawn(self.dropout, is_training=self.training),
        )  # fmt: skip
        outs = self.x_out_proj(x_heads.flatten(-2)), self.y_out_proj(y_heads.flatten(-2))
        if not return_weights:
            return outs
        turned = {
            "mask": None if mask is None else mask.transpose(-1, -2),
            "q_lengths": y_lengths, "kv_lengths": x_lengths,
        }  # fmt: skip
        return (
            *outs,
            looked_at(q, k, None, {"layout": "bshd", **options}),
            looked_at(k, q, None, {"layout": "bshd", **turned}),
        )
