"""How does attention run under torch's own name and conventions? By translating each argument."""

from __future__ import annotations

import torch

from ..errors import REFUSALS, reword
from .attention import attention
from .operators import require_tensors
from .options import draw_seed

# What attention names otherwise than torch.
NAMES = {
    "q": "query", "k": "key", "v": "value", "mask": "attn_mask", "bias": "attn_mask",
    "dropout": "dropout_p",
}  # fmt: skip


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """``torch.nn.functional.scaled_dot_product_attention``, computed by attnext.

    Parameters
    ----------
    query : Tensor (..., Hq, L, E)
        Leading axes of the three broadcast.
    key : Tensor (..., H, S, E)
        See `enable_gqa`.
    value : Tensor (..., H, S, Ev)
        See `enable_gqa`.
    attn_mask : Tensor broadcastable to (..., Hq, L, S), optional
        bool, True: takes part; or float, added to the scores, with a gradient if it requires one.
    dropout_p : float
        Applied whenever it is above 0; the seed comes from torch's generator.
    is_causal : bool
        Aligned top-left, as torch does: query i sees the keys up to i. With attn_mask: both hold.
    scale : float, optional
        None: ``1 / sqrt(E)``.
    enable_gqa : bool
        Whether Hq may be a multiple of H.

    Returns
    -------
    Tensor (..., Hq, L, Ev)
        0 for a query that no key is left for.

    Raises
    ------
    ValueError, TypeError
        Shapes or dtypes that do not fit.

    Notes
    -----
    To have ``torch.nn.functional`` itself and the modules that call it run on attnext, see
    `override_sdpa`.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> q, k, v = torch.randn(3, 2, 8, 100, 64)
    >>> out = attnext.torch.scaled_dot_product_attention(q, k, v, is_causal=True)
    >>> expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    >>> bool(torch.allclose(out, expected, atol=1e-5))
    True
    """
    function = "scaled_dot_product_attention"
    require_tensors(function, query=query, key=key, value=value)
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.dim() < 2:
            raise ValueError(
                f"{function}: {name} must have axes (..., length, dim), found {tuple(tensor.shape)}"
            )
    leading = _leading_axes(query, key, value, enable_gqa)
    q, k, v = (_with_rank_4(x, axes) for x, axes in zip((query, key, value), leading, strict=True))
    mask, bias = split_mask(attn_mask, (*leading[0], query.shape[-2], key.shape[-2]))
    seed = draw_seed() if dropout_p else None
    try:
        out: torch.Tensor = attention(
            q, k, v, scale=scale, causal="top_left" if is_causal else False, mask=mask,
            bias=bias, dropout=dropout_p, seed=seed,
        )  # fmt: skip
    except REFUSALS as error:
        reword(error, function, NAMES)
        raise
    return out.reshape(*leading[0], query.shape[-2], value.shape[-1])


def _leading_axes(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, enable_gqa: bool
) -> list[tuple[int, ...]]:
    """What each of the three has before its last two axes, once they are broadcast."""
    axes = [tuple(x.shape[:-2]) for x in (query, key, value)]
    if not enable_gqa:
        return [_broadcast(*axes)] * 3
    if min(map(len, axes)) == 0 or axes[1][-1] != axes[2][-1]:
        raise ValueError(
            "scaled_dot_product_attention: key and value must have the same heads with "
            f"enable_gqa, found shapes {tuple(key.shape)} and {tuple(value.shape)}"
        )
    batch = _broadcast(*(x[:-1] for x in axes))
    return [(*batch, x[-1]) for x in axes]


def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return tuple(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        raise ValueError(
            "scaled_dot_product_attention: query, key and value must have leading axes that "
            f"broadcast, found {', '.join(map(str, shapes))}"
        ) from None


def _with_rank_4(x: torch.Tensor, leading: tuple[int, ...]) -> torch.Tensor:
    x = x.expand(*leading, *x.shape[-2:])
    return x.flatten(0, -4) if x.dim() > 4 else x


def split_mask(
    attn_mask: torch.Tensor | None, shape: tuple[int, ...]
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """attnext's mask and bias, of which at most one is there."""
    if attn_mask is None:
        return None, None
    if attn_mask.dtype != torch.bool and not attn_mask.is_floating_point():
        raise TypeError(
            "scaled_dot_product_attention: attn_mask must be bool or floating, found "
            f"{attn_mask.dtype}"
        )
    if attn_mask.dim() > len(shape):
        raise ValueError(
            f"scaled_dot_product_attention: attn_mask must broadcast to {shape}, found "
            f"{tuple(attn_mask.shape)}"
        )
    if len(shape) > 4:
        attn_mask = attn_mask.expand(shape).flatten(0, -4)
    return (attn_mask, None) if attn_mask.dtype == torch.bool else (None, attn_mask)
