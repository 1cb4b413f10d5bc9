"""How does attention in torch learn where things are? By attnext's positions, as tensors."""

from __future__ import annotations

from typing import Any

import torch

from .. import positions as arrays
from ..arguments import integer
from .derivatives import differentiable
from .operators import define, require_tensors
from .options import as_tensor, detached, number


def rotary(
    x: torch.Tensor,
    positions: Any = None,
    *,
    theta: float = 10000.0,
    interleaved: bool = False,
    layout: str = "bhsd",
) -> torch.Tensor:
    """Rotates pairs of the last axis by an angle that grows with the position, with a gradient.

    Parameters
    ----------
    x : Tensor (B, H, S, D), (H, S, D) or (S, D)
        q or k; D is even.
    positions : Tensor (S,) or (B, S), optional
        Where each row is; None: 0, 1, 2, ...
    theta, interleaved, layout
        As in `attnext.rotary`.

    Returns
    -------
    Tensor like x

    Raises
    ------
    ValueError, TypeError
        As in `attnext.rotary`.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> attnext.torch.rotary(torch.randn(2, 8, 100, 64)).shape
    torch.Size([2, 8, 100, 64])
    """
    require_tensors("rotary", x=x)
    if positions is None:
        length = x.shape[-2 if layout == "bhsd" or x.dim() == 2 else -3]
        positions = torch.arange(length, device=x.device)
    elif not isinstance(positions, torch.Tensor):
        positions = as_tensor("rotary", "positions", positions, x)
    if positions.requires_grad:
        raise TypeError("rotary: positions must not require grad, they have no gradient")
    theta = number("rotary", "theta", theta)
    turned: torch.Tensor = _rotary(x, positions, theta, interleaved, layout, False)
    return turned


def alibi_slopes(num_heads: int, *, device: torch.device | str | None = None) -> torch.Tensor:
    """The slopes of linear biases (ALiBi), for `attention`'s option of that name.

    Parameters
    ----------
    num_heads : int
        At least 1.
    device : torch.device, optional
        None: the host.

    Returns
    -------
    Tensor (num_heads,) of float32
        See `attnext.alibi_slopes`.

    Raises
    ------
    ValueError, TypeError
        As in `attnext.alibi_slopes`.

    Examples
    --------
    >>> import attnext.torch
    >>> attnext.torch.alibi_slopes(2)
    tensor([0.0625, 0.0039])
    """
    slopes: torch.Tensor = _alibi_slopes(integer("alibi_slopes", "num_heads", num_heads))
    return slopes if device is None else slopes.to(device)


def sinusoidal_positions(
    seqlen: int, dim: int, *, device: torch.device | str | None = None
) -> torch.Tensor:
    """The fixed position vectors of Vaswani et al. (2017).

    Parameters
    ----------
    seqlen, dim : int
        Positions, and axes of each vector; an odd dim ends with a sine.
    device : torch.device, optional
        None: the host.

    Returns
    -------
    Tensor (seqlen, dim) of float32
        See `attnext.sinusoidal_positions`.

    Raises
    ------
    ValueError, TypeError
        As in `attnext.sinusoidal_positions`.

    Examples
    --------
    >>> import attnext.torch
    >>> attnext.torch.sinusoidal_positions(2, 4)[0]
    tensor([0., 1., 0., 1.])
    """
    seqlen = integer("sinusoidal_positions", "seqlen", seqlen)
    table: torch.Tensor = _sinusoids(seqlen, integer("sinusoidal_positions", "dim", dim))
    return table if device is None else table.to(device)


def _rotary_kernel(
    x: Any, positions: Any, theta: float, interleaved: bool, layout: str, is_inverse: bool
) -> torch.Tensor:
    turn = arrays.rotary_backward if is_inverse else arrays.rotary
    turned: torch.Tensor = turn(
        detached(x), positions, theta=theta, interleaved=interleaved, layout=layout
    )
    return turned


def _rotary_fake(x: Any, *rest: Any) -> torch.Tensor:
    found: torch.Tensor = x.new_empty(x.shape)
    return found


def _rotary_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, positions, *ctx.scalars, is_inverse = inputs
    ctx.is_inverse = is_inverse
    ctx.save_for_backward(positions)


def _rotary_differentiate(ctx: Any, dout: Any) -> tuple[Any, ...]:
    dx = _rotary(dout, *ctx.saved_tensors, *ctx.scalars, not ctx.is_inverse)
    return dx, None, None, None, None, None


_rotary_operator = define(
    "rotary",
    "(Tensor x, Tensor positions, float theta, bool interleaved, str layout, bool is_inverse) "
    "-> Tensor",
    _rotary_kernel,
    _rotary_fake,
)
_rotary = differentiable(_rotary_operator, _rotary_differentiate, _rotary_setup)

# Without a tensor among their arguments, no device chooses the kernel.
_alibi_slopes = define(
    "alibi_slopes",
    "(int num_heads) -> Tensor",
    lambda num_heads: torch.from_numpy(arrays.alibi_slopes(num_heads)),
    lambda num_heads: torch.empty(num_heads, dtype=torch.float32),
    keys=("CompositeExplicitAutograd",),
)
_sinusoids = define(
    "sinusoidal_positions",
    "(SymInt seqlen, SymInt dim) -> Tensor",
    lambda seqlen, dim: torch.from_numpy(arrays.sinusoidal_positions(seqlen, dim)),
    lambda seqlen, dim: torch.empty((seqlen, dim), dtype=torch.float32),
    keys=("CompositeExplicitAutograd",),
)
