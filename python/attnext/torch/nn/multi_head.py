"""How do tokens attend in several heads? With projections, grouped heads and positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..attention import attention
from ..options import integers
from ..positions import alibi_slopes, rotary
from .parts import (
    drawn,
    looked_at,
    require_choice,
    require_positive,
    require_probability,
    require_sequences,
)
from .sinusoidal import SinusoidalPositions


class MultiHeadAttention(nn.Module):
    """Projections to heads, attention, and a projection back.

    Parameters
    ----------
    embed_dim : int
        Of the queries and of the result.
    num_heads : int
        Of the queries.
    num_kv_heads : int, optional
        Of the keys and values, a divisor of `num_heads`: grouped-query attention; 1: multi-query.
        None: num_heads.
    head_dim : int, optional
        None: ``embed_dim // num_heads``.
    key_dim, value_dim : int, optional
        Of the keys and values given to a cross attention. None: embed_dim.
    bias : bool
        Of the projections.
    dropout : float
        Of the attention weights, while training.
    causal : bool or {"bottom_right", "top_left"}
        As in `attnext.torch.attention`: True aligns the last query with the last key.
    window : (left, right), optional
        How many keys a query sees to either side, inclusive; -1 or None: all.
    softcap : float, optional
        See `attnext.attention`.
    positions : {None, "rotary", "alibi", "sinusoidal"}
        How a query knows where a key is. "rotary": q and k are rotated; "alibi": scores fall with
        the distance; "sinusoidal": sinusoids are added to what q and k are projected from.
    rotary_theta : float
        Of "rotary".
    max_seqlen : int
        Of "sinusoidal".
    score : {"dot", "cosine"}
        "cosine" has a learned scale for each head.
    qk_norm : bool
        q and k of each head are divided by their root mean square and scaled by a learned vector.
    sinks : bool
        Each head has a learned logit that joins the denominator only.
    batch_first : bool
        True: (B, S, E). False: (S, B, E).
    device, dtype : optional
        Of the parameters.

    Raises
    ------
    ValueError, TypeError
        Sizes that do not divide, or a choice that is not there.

    Notes
    -----
    Vaswani et al. (2017); grouped heads: Ainslie et al. (2023); rotations: Su et al. (2021);
    ALiBi: Press et al. (2022).

    Examples
    --------
    >>> import torch, attnext.torch
    >>> layer = attnext.torch.MultiHeadAttention(32, 4, num_kv_heads=2, positions="rotary")
    >>> x = torch.randn(2, 10, 32)
    >>> layer(x).shape
    torch.Size([2, 10, 32])
    >>> out, weights = layer(x, rows=[0], kv_lengths=torch.tensor([10, 7]))
    >>> weights.shape
    torch.Size([2, 4, 1, 10])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        key_dim: int | None = None,
        value_dim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        causal: bool | str = False,
        window: Sequence[int | None] | None = None,
        softcap: float | None = None,
        positions: str | None = None,
        rotary_theta: float = 10000.0,
        max_seqlen: int = 4096,
        score: str = "dot",
        qk_norm: bool = False,
        sinks: bool = False,
        batch_first: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        require_positive(
            "MultiHeadAttention", embed_dim=embed_dim, num_heads=num_heads,
            num_kv_heads=num_kv_heads, head_dim=head_dim, key_dim=key_dim, value_dim=value_dim,
        )  # fmt: skip
        self.head_dim = self._checked_head_dim(head_dim)
        require_probability("MultiHeadAttention", dropout)
        require_choice("MultiHeadAttention", "score", score, ("dot", "cosine"))
        require_choice(
            "MultiHeadAttention", "positions", positions, (None, "rotary", "alibi", "sinusoidal")
        )
        require_choice(
            "MultiHeadAttention", "causal", causal, (False, True, "bottom_right", "top_left")
        )
        if positions == "rotary" and self.head_dim % 2:
            raise ValueError(
                f"MultiHeadAttention: head_dim must be even for rotary, found {self.head_dim}"
            )
        self.dropout, self.causal, self.softcap = dropout, causal, softcap
        self.window = None if window is None else tuple(window)
        self.positions, self.rotary_theta, self.score = positions, rotary_theta, score
        self.batch_first = batch_first
        factory = {"device": device, "dtype": dtype}
        self._make_projections(key_dim, value_dim, bias, factory)
        self._make_parameters(qk_norm, sinks, max_seqlen, factory)
        self.reset_parameters()

    def _checked_head_dim(self, head_dim: int | None) -> int:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                "MultiHeadAttention: num_heads must be a multiple of num_kv_heads "
                f"{self.num_kv_heads}, found {self.num_heads}"
            )
        if head_dim is None and self.embed_dim % self.num_heads:
            raise ValueError(
                "MultiHeadAttention: embed_dim must be a multiple of num_heads "
                f"{self.num_heads} unless head_dim is given, found {self.embed_dim}"
            )
        return self.embed_dim // self.num_heads if head_dim is None else head_dim

    def _make_projections(
        self, key_dim: int | None, value_dim: int | None, bias: bool, factory: dict[str, Any]
    ) -> None:
        self.key_dim = self.embed_dim if key_dim is None else key_dim
        self.value_dim = self.embed_dim if value_dim is None else value_dim
        width, kv_width = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.q_proj = nn.Linear(self.embed_dim, width, bias, **factory)
        self.k_proj = nn.Linear(self.key_dim, kv_width, bias, **factory)
        self.v_proj = nn.Linear(self.value_dim, kv_width, bias, **factory)
        self.out_proj = nn.Linear(width, self.embed_dim, bias, **factory)

    def _make_parameters(
        self, qk_norm: bool, sinks: bool, max_seqlen: int, factory: dict[str, Any]
    ) -> None:
        self.q_norm = nn.RMSNorm(self.head_dim, **factory) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(self.head_dim, **factory) if qk_norm else nn.Identity()
        learned = torch.empty(self.num_heads, **factory)
        has_scale = self.score == "cosine"
        self.scale = nn.Parameter(learned.clone()) if has_scale else None
        self.sinks = nn.Parameter(learned.clone()) if sinks else None
        self.sinusoids: nn.Module | None = None
        if self.positions == "sinusoidal":
            self.sinusoids = SinusoidalPositions(
                self.embed_dim, max_seqlen, device=factory["device"]
            )
            if self.key_dim != self.embed_dim:
                raise ValueError(
                    "MultiHeadAttention: key_dim must be embed_dim for sinusoidal positions, "
                    f"found {self.key_dim} and {self.embed_dim}"
                )
        has_slopes = self.positions == "alibi"
        slopes = alibi_slopes(self.num_heads, device=factory["device"]) if has_slopes else None
        self.register_buffer("slopes", slopes, persistent=False)

    def reset_parameters(self) -> None:
        """Draw the projections anew (Glorot and Bengio, 2010); cosine starts with a scale of 10."""
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(projection.weight)
            if projection.bias is not None:
                nn.init.zeros_(projection.bias)
        if self.scale is not None:
            nn.init.constant_(self.scale, 10.0)
        if self.sinks is not None:
            nn.init.zeros_(self.sinks)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor | None = None,
        value: torch.Tensor | None = None,
        *,
        mask: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        q_lengths: Any = None,
        kv_lengths: Any = None,
        q_offset: Any = None,
        return_weights: bool = False,
        rows: Any = None,
    ) -> Any:
        """Attend.

        Parameters
        ----------
        query : Tensor (B, Sq, embed_dim)
            Or (Sq, B, embed_dim), see `batch_first`; likewise below.
        key : Tensor (B, Sk, key_dim), optional
            None: the query itself, self attention.
        value : Tensor (B, Sk, value_dim), optional
            None: the key.
        mask : bool Tensor broadcastable to (B, num_heads, Sq, Sk), optional
            True: may attend. For keys to be ignored wherever they are: (B, 1, 1, Sk).
        bias : float Tensor broadcastable to (B, num_heads, Sq, Sk), optional
            Added to the scores; has a gradient.
        q_lengths, kv_lengths : integer Tensor (B,), optional
            How much of each padded sequence exists. In self attention one stands for both.
        q_offset : int or integer Tensor (B,), optional
            Key position of the first query; None: as `causal` aligns them.
        return_weights : bool
            Also return the weights.
        rows : sequence of int, optional
            The query rows whose weights are returned; with return_weights and None: all.

        Returns
        -------
        out : Tensor like query
        weights : Tensor (B, num_heads, len(rows), Sk)
            Only with `return_weights` or `rows`: before dropout, without a gradient.

        Raises
        ------
        ValueError, TypeError
            Shapes that do not fit; otherwise as in `attention`.
        """
        is_self = key is None
        key = query if key is None else key
        value = key if value is None else value
        require_sequences("MultiHeadAttention", {
            "query": (query, self.embed_dim), "key": (key, self.key_dim),
            "value": (value, self.value_dim),
        })  # fmt: skip
        q_lengths, kv_lengths = (
            integers("MultiHeadAttention", name, lengths, query)
            for name, lengths in (("q_lengths", q_lengths), ("kv_lengths", kv_lengths))
        )
        if q_offset is not None and not isinstance(q_offset, int):
            q_offset = integers("MultiHeadAttention", "q_offset", q_offset, query)
        if is_self:
            lengths = q_lengths if kv_lengths is None else kv_lengths
            q_lengths = lengths if q_lengths is None else q_lengths
            kv_lengths = lengths
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        offset = self._offset(query, key, q_lengths, kv_lengths, q_offset)
        q, k = self._project(query, key, offset)
        v = self._heads(self.v_proj(value), self.num_kv_heads)
        options = {
            "score": self.score, "scale": self.scale, "causal": self.causal, "mask": mask,
            "window": self.window, "softcap": self.softcap, "bias": bias, "sinks": self.sinks,
            "alibi_slopes": self.slopes, "q_lengths": q_lengths, "kv_lengths": kv_lengths,
            "q_offset": q_offset, "layout": "bshd",
        }  # fmt: skip
        heads = attention(q, k, v, **options, **drawn(self.dropout, is_training=self.training))
        out = self.out_proj(heads.flatten(-2))
        out = out if self.batch_first else out.transpose(0, 1)
        if not return_weights and rows is None:
            return out
        return out, looked_at(q, k, rows, options)

    def extra_repr(self) -> str:
        """What the projections do not show."""
        return (
            f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}, "
            f"score={self.score!r}, causal={self.causal!r}, window={self.window}, "
            f"positions={self.positions!r}, dropout={self.dropout}"
        )

    def _project(
        self, query: torch.Tensor, key: torch.Tensor, offset: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """q and k with heads, knowing their positions."""
        if self.sinusoids is not None:
            query, key = self.sinusoids(query, offset=offset), self.sinusoids(key)
        q = self.q_norm(self._heads(self.q_proj(query), self.num_heads))
        k = self.k_norm(self._heads(self.k_proj(key), self.num_kv_heads))
        if self.positions == "rotary":
            q = self._rotated(q, offset)
            k = self._rotated(k, 0)
        return q, k

    def _heads(self, x: torch.Tensor, num_heads: int) -> torch.Tensor:
        return x.unflatten(-1, (num_heads, self.head_dim))

    def _rotated(self, x: torch.Tensor, offset: Any) -> torch.Tensor:
        places = torch.arange(x.shape[1], device=x.device)
        places = places + (offset[:, None] if isinstance(offset, torch.Tensor) else offset)
        return rotary(x, places, theta=self.rotary_theta, layout="bshd")

    def _offset(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        q_lengths: torch.Tensor | None,
        kv_lengths: torch.Tensor | None,
        q_offset: Any,
    ) -> Any:
        """Key position of the first query, by the rule by which attention finds the diagonal."""
        if q_offset is not None:
            return q_offset
        if self.causal not in (True, "bottom_right"):
            return 0
        len_q: Any = query.shape[1] if q_lengths is None else q_lengths
        len_k: Any = key.shape[1] if kv_lengths is None else kv_lengths
        return len_k - len_q
