"""How does a single head attend by another score? Additive, general, cosine and Euclidean."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...attention import AdditiveScore
from ..attention import attention
from .parts import drawn, looked_at, require_positive, require_probability, require_sequences


class ScoredAttention(nn.Module):
    """What the modules below share: one head, its values, and weights on request.

    Parameters
    ----------
    dropout : float
        Of the attention weights, while training.
    causal : bool or {"bottom_right", "top_left"}
        As in `attnext.torch.attention`.
    """

    def __init__(self, dropout: float = 0.0, causal: bool | str = False) -> None:
        super().__init__()
        require_probability(type(self).__name__, dropout)
        self.dropout, self.causal = dropout, causal
        self.query_dim: int | None = None
        self.key_dim: int | None = None

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor | None = None,
        *,
        mask: torch.Tensor | None = None,
        q_lengths: torch.Tensor | None = None,
        kv_lengths: torch.Tensor | None = None,
        return_weights: bool = False,
        rows: Any = None,
    ) -> Any:
        """Attend.

        Parameters
        ----------
        query : Tensor (B, Sq, Dq)
            What asks.
        key : Tensor (B, Sk, Dk)
            What is asked.
        value : Tensor (B, Sk, Dv), optional
            What is gathered; None: the key.
        mask : bool Tensor broadcastable to (B, Sq, Sk), optional
            True: may attend.
        q_lengths, kv_lengths : integer Tensor (B,), optional
            How much of each padded sequence exists.
        return_weights : bool
            Also return the weights.
        rows : sequence of int, optional
            The query rows whose weights are returned; with return_weights and None: all.

        Returns
        -------
        out : Tensor (B, Sq, Dv)
        weights : Tensor (B, len(rows), Sk)
            Only with `return_weights` or `rows`: before dropout, without a gradient.

        Raises
        ------
        ValueError, TypeError
            Shapes that do not fit; otherwise as in `attention`.
        """
        value = key if value is None else value
        require_sequences(type(self).__name__, {
            "query": (query, self.query_dim), "key": (key, self.key_dim), "value": (value, None),
        })  # fmt: skip
        q, k, score_options = self._compared(query, key)
        q, k, v = (x.unsqueeze(1) for x in (q, k, value))
        options = {
            "causal": self.causal, "q_lengths": q_lengths, "kv_lengths": kv_lengths,
            "mask": mask.unsqueeze(1) if mask is not None and mask.dim() == 3 else mask,
            **score_options,
        }  # fmt: skip
        out = attention(q, k, v, **options, **drawn(self.dropout, is_training=self.training))
        if not return_weights and rows is None:
            return out.squeeze(1)
        return out.squeeze(1), looked_at(q, k, rows, options).squeeze(1)

    def extra_repr(self) -> str:
        """What the parameters do not show."""
        return f"causal={self.causal!r}, dropout={self.dropout}"

    def _compared(
        self, query: torch.Tensor, key: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """What the score compares, and its options."""
        raise NotImplementedError


class AdditiveAttention(ScoredAttention):
    """``score = weight . tanh(q_proj(query) + k_proj(key))`` of Bahdanau et al. (2015).

    Parameters
    ----------
    query_dim, key_dim : int
        Of what is given.
    hidden_dim : int
        Of the sum under the tanh.
    bias : bool
        Of that sum.
    dropout, causal
        See `ScoredAttention`.
    device, dtype : optional
        Of the parameters.

    Raises
    ------
    ValueError, TypeError
        A size that is no integer above 0, or a dropout that is no probability.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> align = attnext.torch.AdditiveAttention(query_dim=8, key_dim=6, hidden_dim=16)
    >>> state, encoded = torch.randn(2, 1, 8), torch.randn(2, 5, 6)
    >>> context, weights = align(state, encoded, return_weights=True)
    >>> context.shape, weights.shape
    (torch.Size([2, 1, 6]), torch.Size([2, 1, 5]))
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int,
        hidden_dim: int,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        causal: bool | str = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dropout, causal)
        require_positive(
            "AdditiveAttention", query_dim=query_dim, key_dim=key_dim, hidden_dim=hidden_dim
        )
        self.query_dim, self.key_dim = query_dim, key_dim
        factory = {"device": device, "dtype": dtype}
        self.q_proj = nn.Linear(query_dim, hidden_dim, bias=bias, **factory)
        self.k_proj = nn.Linear(key_dim, hidden_dim, bias=False, **factory)
        self.weight = nn.Parameter(torch.empty(hidden_dim, **factory))
        nn.init.uniform_(self.weight, -(hidden_dim**-0.5), hidden_dim**-0.5)

    def _compared(
        self, query: torch.Tensor, key: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        return self.q_proj(query), self.k_proj(key), {"score": AdditiveScore(self.weight)}


class GeneralAttention(ScoredAttention):
    """``score = scale * query . weight . key``, the "general" one of Luong et al. (2015).

    Parameters
    ----------
    query_dim, key_dim : int
        Of what is given.
    scale : float
        Of the score; 1 as in the paper.
    dropout, causal
        See `ScoredAttention`.
    device, dtype : optional
        Of the parameters.

    Raises
    ------
    ValueError, TypeError
        A size that is no integer above 0, or a dropout that is no probability.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> attend = attnext.torch.GeneralAttention(8, 6)
    >>> attend(torch.randn(2, 3, 8), torch.randn(2, 5, 6)).shape
    torch.Size([2, 3, 6])
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int,
        *,
        scale: float = 1.0,
        dropout: float = 0.0,
        causal: bool | str = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dropout, causal)
        require_positive("GeneralAttention", query_dim=query_dim, key_dim=key_dim)
        self.query_dim, self.key_dim, self.scale = query_dim, key_dim, scale
        self.weight = nn.Parameter(torch.empty(query_dim, key_dim, device=device, dtype=dtype))
        nn.init.xavier_uniform_(self.weight)

    def _compared(
        self, query: torch.Tensor, key: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        return query @ self.weight, key, {"scale": self.scale}


class CosineAttention(ScoredAttention):
    """``score = scale * cos(query, key)`` with a learned scale.

    Parameters
    ----------
    scale : float
        What the learned scale starts from.
    dropout, causal
        See `ScoredAttention`.
    device, dtype : optional
        Of the parameter.

    Raises
    ------
    ValueError, TypeError
        A dropout that is no probability.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> words = torch.randn(1, 5, 16)
    >>> out, weights = attnext.torch.CosineAttention()(words, words, rows=[2])
    >>> weights.shape
    torch.Size([1, 1, 5])
    """

    def __init__(
        self,
        scale: float = 10.0,
        *,
        dropout: float = 0.0,
        causal: bool | str = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dropout, causal)
        self.scale = nn.Parameter(torch.tensor(float(scale), device=device, dtype=dtype))

    def _compared(
        self, query: torch.Tensor, key: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        return query, key, {"score": "cosine", "scale": self.scale}


class EuclideanAttention(ScoredAttention):
    """``score = -scale * |query - key|`` or its square, with a learned scale.

    Parameters
    ----------
    scale : float
        What the learned scale starts from.
    squared : bool
        Whether the distance is squared.
    dropout, causal
        See `ScoredAttention`.
    device, dtype : optional
        Of the parameter.

    Raises
    ------
    ValueError, TypeError
        A dropout that is no probability.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> attend = attnext.torch.EuclideanAttention(squared=True)
    >>> attend(torch.randn(2, 3, 8), torch.randn(2, 5, 8)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(
        self,
        scale: float = 1.0,
        *,
        squared: bool = False,
        dropout: float = 0.0,
        causal: bool | str = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dropout, causal)
        self.squared = squared
        self.scale = nn.Parameter(torch.tensor(float(scale), device=device, dtype=dtype))

    def _compared(
        self, query: torch.Tensor, key: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        score = "neg_sq_l2" if self.squared else "neg_l2"
        return query, key, {"score": score, "scale": self.scale}
