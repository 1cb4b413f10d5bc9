"""How are words, or the regions of an image, summed up in one vector? By learned attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..pooling import attention_pool, pool_weights
from .parts import require_choice, require_positive


class AttentionPooling(nn.Module):
    """``sum_j p_j tanh(h_j)`` with ``h = proj(x)`` and ``p = softmax(weight . tanh(h))``.

    Over the words of a text this is what has been called sequential attention, over the regions
    of an image parallel attention: the same sum over another axis.

    Parameters
    ----------
    dim : int
        Of each word, or the channels of each region.
    hidden_dim : int, optional
        Of h; None: dim.
    out_dim : int, optional
        Of the result, by a last projection; None: there is none.
    values : {"hidden", "input"}
        What is summed: ``tanh(h_j)``, or x_j itself as by Yang et al. (2016).
    bias : bool
        Of the projections.
    device, dtype : optional
        Of the parameters.

    Raises
    ------
    ValueError, TypeError
        A size that is no integer above 0, or values that are neither.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> pool = attnext.torch.AttentionPooling(16, 32, 5)
    >>> pool(torch.randn(2, 10, 16), lengths=torch.tensor([10, 4])).shape
    torch.Size([2, 5])
    >>> pooled, weights = pool(torch.randn(2, 16, 8, 8), return_weights=True)
    >>> pooled.shape, weights.shape
    (torch.Size([2, 5]), torch.Size([2, 8, 8]))
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int | None = None,
        out_dim: int | None = None,
        *,
        values: str = "hidden",
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        require_positive("AttentionPooling", dim=dim, hidden_dim=hidden_dim, out_dim=out_dim)
        require_choice("AttentionPooling", "values", values, ("hidden", "input"))
        self.dim, self.values = dim, values
        hidden_dim = dim if hidden_dim is None else hidden_dim
        factory = {"device": device, "dtype": dtype}
        self.proj = nn.Linear(dim, hidden_dim, bias, **factory)
        self.weight = nn.Parameter(torch.empty(hidden_dim, **factory))
        nn.init.uniform_(self.weight, -(hidden_dim**-0.5), hidden_dim**-0.5)
        summed_dim = hidden_dim if values == "hidden" else dim
        self.out_proj = nn.Identity() if out_dim is None else nn.Linear(
            summed_dim, out_dim, bias, **factory
        )  # fmt: skip

    def forward(self, x: torch.Tensor, *, lengths: Any = None, return_weights: bool = False) -> Any:
        """Sum up.

        Parameters
        ----------
        x : Tensor (B, S, dim) or (B, dim, H, W)
            Words, or an image of features with its channels first.
        lengths : integer Tensor (B,), optional
            How much of each sequence of words exists.
        return_weights : bool
            Also return the weights.

        Returns
        -------
        pooled : Tensor (B, out_dim)
        weights : Tensor (B, S) or (B, H, W)
            Only with `return_weights`: without a gradient.

        Raises
        ------
        ValueError
            Other axes than these; lengths of an image.
        """
        is_image = x.dim() == 4
        if x.dim() not in (3, 4) or x.shape[1 if is_image else 2] != self.dim:
            raise ValueError(
                f"AttentionPooling: x must have axes (B, S, {self.dim}) or (B, {self.dim}, H, W), "
                f"found {tuple(x.shape)}"
            )
        if is_image and lengths is not None:
            raise ValueError("AttentionPooling: lengths must be given for words only, not images")
        items = x.flatten(2).transpose(1, 2) if is_image else x
        hidden = self.proj(items)
        summed = torch.tanh(hidden) if self.values == "hidden" else items
        pooled = self.out_proj(attention_pool(hidden, self.weight, values=summed, lengths=lengths))
        if not return_weights:
            return pooled
        with torch.no_grad():
            weights = pool_weights(hidden, self.weight, lengths=lengths)
        return pooled, weights.unflatten(-1, x.shape[2:]) if is_image else weights
