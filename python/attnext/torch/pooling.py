"""How is a sequence summed up in one vector, with a gradient? By attention with one query."""

from __future__ import annotations

from typing import Any

import torch

from ..attention import AdditiveScore
from ..errors import REFUSALS, reword
from .attention import attention
from .inspection import attention_weights
from .operators import require_tensors
from .options import integers

# What attention names otherwise than the caller.
NAMES = {"q": "x", "k": "x", "kv_lengths": "lengths", "AdditiveScore.weight": "weight"}


def attention_pool(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    values: torch.Tensor | None = None,
    lengths: Any = None,
) -> torch.Tensor:
    """``sum_j p_j values_j`` with ``p = softmax(weight . tanh(x_j))`` over the sequence.

    Parameters
    ----------
    x : Tensor (B, S, D) or (S, D)
        What the weights are made from.
    weight : Tensor (D,)
        The learned query.
    values : Tensor (B, S, Dv) or (S, Dv), optional
        What is summed; None: x itself.
    lengths : integer Tensor (B,), optional
        How much of each sequence exists; for x (S, D) an int.

    Returns
    -------
    pooled : Tensor (B, Dv) or (Dv,)
        In x's dtype; 0 for a sequence of length 0. x, weight and values have gradients.

    Raises
    ------
    ValueError, TypeError
        As in `attnext.attention_pool`.

    Notes
    -----
    The word and sentence attention of Yang et al. (2016), once x is projected.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> attnext.torch.attention_pool(torch.ones(2, 5, 3), torch.zeros(3), lengths=[5, 2])
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    summed = x if values is None else values
    q, k, options = _as_attention(x, weight, summed, lengths)
    try:
        out: torch.Tensor = attention(q, k, summed.unsqueeze(-3), **options)
    except REFUSALS as error:
        reword(error, "attention_pool", {**NAMES, "v": "x" if values is None else "values"})
        raise
    return out[..., 0, 0, :]


def pool_weights(x: torch.Tensor, weight: torch.Tensor, *, lengths: Any = None) -> torch.Tensor:
    """The weights p of `attention_pool`, (B, S) or (S,), for looking at.

    Parameters
    ----------
    x, weight, lengths
        As in `attention_pool`.

    Returns
    -------
    Tensor (B, S) or (S,)
        In x's dtype.

    Raises
    ------
    ValueError, TypeError
        As in `attention_pool`.
    """
    q, k, options = _as_attention(x, weight, x, lengths)
    return attention_weights(q, k, **options)[..., 0, 0, :]


def _as_attention(
    x: torch.Tensor, weight: torch.Tensor, values: torch.Tensor, lengths: Any
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """A zero query for each sequence, the keys with one head, and the options."""
    function = "attention_pool"
    require_tensors(function, x=x, weight=weight, values=values)
    for name, tensor in (("x", x), ("values", values)):
        if tensor.dim() not in (2, 3) or tensor.shape[:-1] != x.shape[:-1]:
            raise ValueError(
                f"{function}: {name} must have axes (B, S, D) or (S, D), as x, found shape "
                f"{tuple(tensor.shape)}"
            )
    if weight.shape != x.shape[-1:]:
        raise ValueError(
            f"{function}: weight must have shape (D,), here {tuple(x.shape[-1:])}, "
            f"found {tuple(weight.shape)}"
        )
    lengths = integers(function, "lengths", lengths, x)
    if x.dim() == 2 and lengths is not None:
        lengths = lengths.reshape(-1)
    query = x.new_zeros((*x.shape[:-2], 1, 1, x.shape[-1]))
    return query, x.unsqueeze(-3), {"score": AdditiveScore(weight), "kv_lengths": lengths}
