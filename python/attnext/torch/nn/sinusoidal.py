"""How do vectors learn where they are? By sinusoids, which are added to them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..positions import sinusoidal_positions
from .parts import require_positive


class SinusoidalPositions(nn.Module):
    """Adds the fixed position vectors of Vaswani et al. (2017).

    Parameters
    ----------
    dim : int
        Of the vectors.
    max_seqlen : int
        How many positions there are.
    device : optional
        Of their vectors.

    Raises
    ------
    ValueError, TypeError
        A size that is no integer above 0.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> attnext.torch.SinusoidalPositions(4)(torch.zeros(1, 1, 4))
    tensor([[[0., 1., 0., 1.]]])
    """

    table: torch.Tensor

    def __init__(self, dim: int, max_seqlen: int = 4096, *, device: Any = None) -> None:
        super().__init__()
        require_positive("SinusoidalPositions", dim=dim, max_seqlen=max_seqlen)
        table = sinusoidal_positions(max_seqlen, dim, device=device)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: torch.Tensor, *, offset: Any = 0) -> torch.Tensor:
        """Add to each vector that of its position.

        Parameters
        ----------
        x : Tensor (.., S, dim)
            Vectors.
        offset : int or integer Tensor (B,)
            Position of the first of them.

        Returns
        -------
        Tensor like x

        Raises
        ------
        ValueError
            More positions than there are, or another dim.
        """
        max_seqlen, dim = self.table.shape
        if x.shape[-1] != dim:
            raise ValueError(
                f"SinusoidalPositions: x must have {dim} in its last axis, found {tuple(x.shape)}"
            )
        length = x.shape[-2]
        if isinstance(offset, torch.Tensor):
            places = torch.arange(length, device=x.device) + offset[..., None].to(x.device)
            return x + self.table[places].to(x.dtype)
        if offset < 0 or offset + length > max_seqlen:
            raise ValueError(
                f"SinusoidalPositions: positions must be in [0, max_seqlen {max_seqlen}), found "
                f"{offset} to {offset + length}"
            )
        return x + self.table[offset : offset + length].to(x.dtype)
