"""What does vmap do with an operator? One call where the batch can hold it, else one for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map

from .options import NUM_TENSORS, OpOptions

Rule = Callable[..., Any]


def one_by_one(operator: Any) -> Rule:
    """Right for every argument, since a sample sees what a call of its own would."""

    def rule(info: Any, in_dims: Any, *arguments: Any) -> Any:
        if info.batch_size == 0:
            name = operator.name().split("::")[1]
            raise ValueError(f"{name}: vmap must have at least one sample, found none")
        results = [
            operator(*(_sample(x, dim, i) for x, dim in zip(arguments, in_dims)))
            for i in range(info.batch_size)
        ]
        if isinstance(results[0], torch.Tensor):
            return torch.stack(results), 0
        stacked = type(results[0])(torch.stack(samples) for samples in zip(*results))
        return stacked, tree_map(lambda _: 0, stacked)

    return rule


def folded_forward(operator: Any, num_arrays: int) -> Rule:
    """Samples become entries of the batch, where no option speaks of the batch."""
    each = one_by_one(operator)

    def rule(info: Any, in_dims: Any, *arguments: Any) -> Any:
        options = OpOptions(*arguments[num_arrays:])
        if not _is_foldable(in_dims[num_arrays:], options):
            return each(info, in_dims, *arguments)
        fold = _Fold(info.batch_size, arguments[0], in_dims[0])
        arrays = [fold(x, dim) for x, dim in zip(arguments[:num_arrays], in_dims)]
        results = operator(*arrays, *options._replace(layout=fold.layout(options.layout)))
        return tuple(map(fold.undo, results)), (0,) * len(results)

    return rule


def folded_backward(operator: Any, num_results: int, num_arrays: int) -> Rule:
    """Likewise, where no gradient is asked for that sums over the batch."""
    each = one_by_one(operator)
    num_tensors = 2 * num_results + num_arrays  # gradients of the results, arrays, results

    def rule(info: Any, in_dims: Any, *arguments: Any) -> Any:
        *given, wanted = arguments[num_tensors:]
        options = OpOptions(*given)
        if any(wanted[num_arrays:]) or not _is_foldable(in_dims[num_tensors:-1], options):
            return each(info, in_dims, *arguments)
        fold = _Fold(info.batch_size, arguments[num_results], in_dims[num_results])
        arrays = [fold(x, dim) for x, dim in zip(arguments[:num_tensors], in_dims)]
        options = options._replace(layout=fold.layout(options.layout))
        results = operator(*arrays, *options, wanted)
        return list(map(fold.undo, results)), [0] * len(results)

    return rule


class _Fold:
    """How arrays of one sample's rank get a batch that holds all samples, and lose it again."""

    def __init__(self, size: int, q: torch.Tensor, dim: int | None) -> None:
        self.size = size
        shape = q.shape if dim is None else q.movedim(dim, 0).shape[1:]
        self.rank, self.batch = len(shape), shape[0]

    def layout(self, layout: str) -> str:
        # An axis for heads is put before the sequence where there is none.
        return "bhsd" if self.rank == 2 else layout

    def __call__(self, x: torch.Tensor | None, dim: int | None) -> torch.Tensor | None:
        if x is None:
            return None
        x = x.expand(self.size, *x.shape) if dim is None else x.movedim(dim, 0)
        return x.unsqueeze(1) if self.rank == 2 else x.flatten(0, 1) if self.rank == 4 else x

    def undo(self, x: torch.Tensor) -> torch.Tensor:
        if self.rank == 2:
            return x.squeeze(1)
        return x.unflatten(0, (self.size, self.batch)) if self.rank == 4 else x


def _is_foldable(in_dims: Any, o: OpOptions) -> bool:
    speaks_of_batch = (
        o.q_lengths, o.kv_lengths, o.cu_seqlens_q, o.cu_seqlens_k, o.block_table, o.seed
    )  # fmt: skip
    by_entry = ((o.alibi_slopes, 2), (o.q_offset, 1))
    return (
        all(dim is None for dim in in_dims[:NUM_TENSORS])
        and all(x is None for x in speaks_of_batch)
        and all(x is None or x.dim() < rank for x, rank in by_entry)
        and all(x is None or x.dim() < 4 or x.shape[0] == 1 for x in (o.mask, o.bias))
    )


def _sample(x: Any, dim: Any, index: int) -> Any:
    if isinstance(x, list | tuple):
        dims = dim if isinstance(dim, list | tuple) else [dim] * len(x)
        return type(x)(_sample(item, d, index) for item, d in zip(x, dims))
    return x if dim is None else x.select(dim, index)
