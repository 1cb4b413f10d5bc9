"""What do the modules share? Checks of their arguments, a seed for dropout, weights on request."""

from __future__ import annotations

from typing import Any

import torch

from ..inspection import attention_weights
from ..options import draw_seed


def require_positive(module: str, **sizes: int | None) -> None:
    """Refuses a size that is no integer above 0; None is for the module to replace."""
    for name, size in sizes.items():
        if size is None:
            continue
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"{module}: {name} must be an integer, found {type(size).__name__}")
        if size < 1:
            raise ValueError(f"{module}: {name} must be at least 1, found {size}")


def require_probability(module: str, dropout: float) -> None:
    """Refuses what is no probability."""
    if not isinstance(dropout, int | float):
        raise TypeError(f"{module}: dropout must be a number, found {type(dropout).__name__}")
    if not 0 <= dropout <= 1:
        raise ValueError(f"{module}: dropout must be in [0, 1], found {dropout}")


def require_choice(module: str, name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Refuses what is none of the choices."""
    if value not in choices:
        words = ", ".join(map(repr, choices))
        raise ValueError(f"{module}: {name} must be one of {words}, found {value!r}")


def require_sequences(module: str, dim_of: dict[str, tuple[Any, int | None]]) -> None:
    """Refuses what is no (B, S, dim); a dim of None is any."""
    for name, (x, dim) in dim_of.items():
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{module}: {name} must be a torch.Tensor, found {type(x).__name__}")
        if x.dim() != 3 or (dim is not None and x.shape[-1] != dim):
            axes = "(B, S, D)" if dim is None else f"(B, S, {dim})"
            raise ValueError(f"{module}: {name} must have axes {axes}, found {tuple(x.shape)}")


def drawn(dropout: float, *, is_training: bool) -> dict[str, Any]:
    """The dropout options of one call; the seed comes from torch's own generator."""
    if not is_training or dropout == 0:
        return {}
    return {"dropout": dropout, "seed": draw_seed()}


def looked_at(q: torch.Tensor, k: torch.Tensor, rows: Any, options: dict[str, Any]) -> torch.Tensor:
    """The weights of a call with these options, for looking at: they carry no gradient."""
    with torch.no_grad():
        return attention_weights(q, k, rows=rows, **options)
