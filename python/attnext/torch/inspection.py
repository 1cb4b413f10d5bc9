"""What does torch ask besides the result? Weights, statistics, merging, the dropout mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import passes
from ..arguments import items
from . import options as op_options
from .attention import attention_backward_op, attention_op, lse_shape, sum_dtype
from .derivatives import differentiable
from .operators import cast_in_autocast, define, require_tensors
from .options import NUM_DIFFERENTIABLE, NUM_TENSORS, detached, show_options
from .vmap import one_by_one


@show_options
def attention_weights(
    q: torch.Tensor, k: torch.Tensor, *, rows: Any = None, **options: Any
) -> torch.Tensor:
    """The weights ``p = exp(s - lse)`` of the query rows asked for.

    Parameters
    ----------
    q, k : Tensor
        See `attention`.
    rows : sequence of int or integer Tensor, optional
        Query rows, in any order; negative ones count from the end. None: all.
    **options
        See `attention`. Dropout is not applied.

    Returns
    -------
    p : Tensor (B, Hq, len(rows), Sk)
        In q's dtype, as `attnext.attention_weights`.

    Raises
    ------
    ValueError, TypeError, NotImplementedError, RuntimeError
        As in `attnext.attention_weights`.

    Notes
    -----
    They have a gradient, which is that of ``attention(q, k, identity)``: it costs Sk times as much
    as the weights. A loss of them is for short sequences.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> q, k = torch.randn(2, 8, 100, 64)
    >>> attnext.torch.attention_weights(q, k, rows=[-1], causal=True).shape
    torch.Size([8, 1, 100])
    """
    require_tensors("attention_weights", q=q, k=k)
    encoded = op_options.encode("attention_weights", q, options)
    chosen = op_options.integers("attention_weights", "rows", rows, q)
    result: torch.Tensor = _weights(q, k, chosen, *encoded)
    return result


@show_options
def attention_stats(q: torch.Tensor, k: torch.Tensor, **options: Any) -> passes.AttentionStats:
    """How the weights are spread, without forming them.

    Parameters
    ----------
    q, k : Tensor
        See `attention`.
    **options
        See `attention`. Dropout is not applied.

    Returns
    -------
    AttentionStats
        ``lse``, ``row_max`` and ``entropy``, each (B, Hq, Sq), and ``key_mass`` (B, Hq, Sk), as
        `attnext.attention_stats`. They carry no gradient.

    Raises
    ------
    ValueError, TypeError, NotImplementedError, RuntimeError
        As in `attnext.attention_stats`.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> zeros = torch.zeros(4, 8)
    >>> attnext.torch.attention_stats(zeros, zeros).entropy
    tensor([1.3863, 1.3863, 1.3863, 1.3863])
    """
    require_tensors("attention_stats", q=q, k=k)
    encoded = op_options.encode("attention_stats", q, options)
    with torch.no_grad():
        return passes.AttentionStats(*_stats(q, k, *encoded))


def merge_attention(
    outs: Sequence[torch.Tensor], lses: Sequence[torch.Tensor], *, layout: str = "bhsd"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Joins results over disjoint sets of keys into the result over all of them.

    Parameters
    ----------
    outs, lses : sequence of Tensors
        What `attention` returned for each set with ``return_lse=True``; both have gradients.
    layout : {"bhsd", "bshd", "thd"}
        Of the outs.

    Returns
    -------
    out, lse : Tensor
        ``lse = log(sum_i exp(lse_i))`` and ``out = sum_i out_i exp(lse_i - lse)``.

    Raises
    ------
    ValueError, TypeError
        As in `attnext.merge_attention`.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> q, k, v = torch.randn(3, 10, 16)
    >>> halves = [
    ...     attnext.torch.attention(q, k[i::2], v[i::2], return_lse=True) for i in range(2)]
    >>> out, lse = attnext.torch.merge_attention(*zip(*halves))
    >>> bool(torch.allclose(out, attnext.torch.attention(q, k, v), atol=1e-6))
    True
    """
    outs, lses = list(outs), list(lses)
    if not outs or len(outs) != len(lses):
        raise ValueError(
            f"merge_attention: outs and lses must be as many, at least one, found {len(outs)} "
            f"and {len(lses)}"
        )
    for out, lse in zip(outs, lses):
        require_tensors("merge_attention", outs=out, lses=lse)
    result: tuple[torch.Tensor, torch.Tensor] = _merge(outs, lses, layout)
    return result


def dropout_mask(
    shape: Sequence[int],
    dropout: float,
    seed: int | torch.Tensor,
    *,
    stream: int = 0,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """The weights that dropout keeps: the same bits as in every kernel.

    Parameters
    ----------
    shape, dropout, seed, stream
        As in `attnext.dropout_mask`; the seed may be a 0-d int64 Tensor.
    device : torch.device, optional
        Of the result; None: the host.

    Returns
    -------
    Tensor of bool
        True where a weight is kept.

    Raises
    ------
    ValueError, TypeError
        As in `attnext.dropout_mask`.

    Examples
    --------
    >>> import attnext.torch
    >>> attnext.torch.dropout_mask((2, 4, 100, 100), 0.25, seed=1).dtype
    torch.bool
    """
    encoded = op_options.read_seed("dropout_mask", seed)
    if encoded is None:
        raise TypeError("dropout_mask: seed must be an integer, found None")
    axes = items("dropout_mask", "shape", shape)
    for axis in axes:
        if not isinstance(axis, int | torch.SymInt):
            found = type(axis).__name__
            raise TypeError(f"dropout_mask: each axis of shape must be an integer, found {found}")
    probability = op_options.number("dropout_mask", "dropout", dropout)
    keep: torch.Tensor = _dropout_mask(encoded, axes, probability, stream)
    return keep if device is None else keep.to(device)


def _weights_kernel(q: Any, k: Any, rows: Any, *options: Any) -> torch.Tensor:
    p: torch.Tensor = passes.attention_weights(
        detached(q), detached(k), rows=rows, **op_options.decode(options)
    )
    return p


def _weights_fake(q: Any, k: Any, rows: Any, *options: Any) -> torch.Tensor:
    o = op_options.OpOptions(*options)
    heads_and_rows = lse_shape(q, o.layout)
    num_rows = heads_and_rows[-1] if rows is None else rows.shape[0]
    return q.new_empty((*heads_and_rows[:-1], num_rows, _num_keys(q, k, o)))


def _num_keys(q: Any, k: Any, o: op_options.OpOptions) -> Any:
    """The last axis of the weights, whose length packed and paged keys decide by their values."""
    if o.layout == "thd" or o.block_table is not None:
        return torch.library.get_ctx().new_dynamic_size()
    return lse_shape(k, o.layout)[-1]


def _weights_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[: 3 + NUM_TENSORS])
    ctx.scalars = inputs[3 + NUM_TENSORS :]


def _weights_differentiate(ctx: Any, dp: Any) -> tuple[Any, ...]:
    """The weights are what attention returns for values that are the identity matrix."""
    q, k, rows, *tensors = ctx.saved_tensors
    o = op_options.OpOptions(*tensors, *ctx.scalars)._replace(dropout=0.0)
    if o.block_table is not None:
        raise NotImplementedError("attention_weights: block_table is for the forward pass only")
    q_wanted, k_wanted, _, *others = ctx.needs_input_grad[: 3 + NUM_DIFFERENTIABLE]
    wanted = [q_wanted, k_wanted, False, *others]
    v = _identity(k, dp.shape[-1], o)
    out, lse = attention_op(q, k, v, *o)
    dout = _all_rows(dp, rows, lse.shape[-1])
    dout = dout if o.layout == "bhsd" or q.dim() == 2 else dout.transpose(-2, -3)
    grads = iter(attention_backward_op(dout, None, q, k, v, out, lse, *o, wanted))
    found = [next(grads) if is_wanted else None for is_wanted in wanted]
    return (*found, *(None,) * (len(o) - NUM_DIFFERENTIABLE))


def _identity(k: torch.Tensor, num_keys: Any, o: op_options.OpOptions) -> torch.Tensor:
    """Values of which key j of each sequence has the j-th unit vector, for each of k's heads."""
    if o.layout == "thd":
        assert o.cu_seqlens_k is not None
        begins = o.cu_seqlens_k.to(k.device, torch.int64)
        places = torch.arange(k.shape[0], device=k.device)
        sequences = torch.searchsorted(begins, places, right=True) - 1
        axis = torch.arange(num_keys, device=k.device)
        units = (places - begins[sequences])[:, None] == axis
        return units.to(k.dtype)[:, None, :].expand(*k.shape[:-1], num_keys)
    units = torch.eye(num_keys, dtype=k.dtype, device=k.device)
    if o.layout == "bshd" and k.dim() > 2:
        units = units[:, None, :]
    return units.expand(*k.shape[:-1], num_keys)


def _all_rows(dp: torch.Tensor, rows: torch.Tensor | None, num_rows: Any) -> torch.Tensor:
    """The gradient of the weights of all rows, from that of those asked for."""
    if rows is None:
        return dp
    full = dp.new_zeros((*dp.shape[:-2], num_rows, dp.shape[-1]))
    places = torch.where(rows < 0, rows + num_rows, rows).to(torch.int64)
    return full.index_add(-2, places, dp)


def _stats_kernel(q: Any, k: Any, *options: Any) -> tuple[torch.Tensor, ...]:
    return tuple(passes.attention_stats(detached(q), detached(k), **op_options.decode(options)))


def _stats_fake(q: Any, k: Any, *options: Any) -> tuple[torch.Tensor, ...]:
    o = op_options.OpOptions(*options)
    shape = lse_shape(q, o.layout)
    num_keys: Any = lse_shape(k, o.layout)[-1]
    if o.block_table is not None:
        num_keys = torch.library.get_ctx().new_dynamic_size()
    shapes = (shape, shape, shape, (*shape[:-1], num_keys))
    return tuple(q.new_empty(shape, dtype=sum_dtype(q)) for shape in shapes)


def _merge_kernel(outs: Any, lses: Any, layout: str) -> tuple[torch.Tensor, torch.Tensor]:
    arrays = [[detached(x) for x in tensors] for tensors in (outs, lses)]
    return passes.merge_attention(*arrays, layout=layout)  # type: ignore[arg-type]


def _merge_fake(outs: Any, lses: Any, layout: str) -> tuple[torch.Tensor, torch.Tensor]:
    return outs[0].new_empty(outs[0].shape), lses[0].new_empty(lses[0].shape)


def _merge_setup(ctx: Any, inputs: Any, output: Any) -> None:
    outs, lses, ctx.layout = inputs
    ctx.save_for_backward(*outs, *lses, *output)


def _merge_differentiate(ctx: Any, dout: Any, dlse: Any) -> Any:
    """out_i counts with w_i = exp(lse_i - lse), of which dw_i / dlse_j = w_i (1[i = j] - w_j)."""
    *tensors, out, lse = ctx.saved_tensors
    outs, lses = tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
    swaps = ctx.layout != "bhsd" and out.dim() > 2
    douts, dlses = [], []
    for out_i, lse_i in zip(outs, lses):
        weight = torch.exp(torch.where(lse_i == -torch.inf, -torch.inf, lse_i - lse))
        rows = weight.transpose(-1, -2) if swaps else weight
        douts.append((rows[..., None] * dout).to(out_i.dtype))
        change = (dout.to(lse.dtype) * (out_i - out).to(lse.dtype)).sum(-1)
        change = change.transpose(-1, -2) if swaps else change
        dlses.append(weight * (dlse + change))
    return douts, dlses, None


def _dropout_mask_kernel(seed: Any, shape: Any, dropout: float, stream: int) -> torch.Tensor:
    keep = passes.dropout_mask(shape, dropout, int(seed) % 2**64, stream=stream)
    return torch.from_numpy(keep)


def _dropout_mask_fake(seed: Any, shape: Any, dropout: float, stream: int) -> torch.Tensor:
    return seed.new_empty(shape, dtype=torch.bool)


_weights_operator = define(
    "attention_weights",
    f"(Tensor q, Tensor k, Tensor? rows, {op_options.SCHEMA}) -> Tensor",
    _weights_kernel,
    _weights_fake,
)
_stats = define(
    "attention_stats",
    f"(Tensor q, Tensor k, {op_options.SCHEMA}) -> (Tensor lse, Tensor row_max, Tensor entropy, "
    "Tensor key_mass)",
    _stats_kernel,
    _stats_fake,
)
_merge_operator = define(
    "merge_attention",
    "(Tensor[] outs, Tensor[] lses, str layout) -> (Tensor out, Tensor lse)",
    _merge_kernel,
    _merge_fake,
)
_dropout_mask = define(
    "dropout_mask",
    "(Tensor seed, SymInt[] shape, float dropout, int stream) -> Tensor",
    _dropout_mask_kernel,
    _dropout_mask_fake,
)
cast_in_autocast(_weights_operator, 2)
cast_in_autocast(_stats, 2)
_weights = differentiable(_weights_operator, _weights_differentiate, _weights_setup)
_merge = differentiable(_merge_operator, _merge_differentiate, _merge_setup)
for _operator in (_stats, _dropout_mask):
    torch.library.register_vmap(_operator, one_by_one(_operator))
