"""How do tensors with many axes become (batch, length, heads, dim)? By Keras's `attention_axes`."""

from __future__ import annotations

from math import prod
from typing import Any

from keras import ops


class Axes:
    """Which axes of a projected tensor (B, .., N, H) are attended, and which only go along.

    Those that go along join the batch; those that are attended make one length.
    """

    def __init__(self, attended: tuple[int, ...], rank: int) -> None:
        self.attended = tuple(attended)
        self.free = tuple(axis for axis in range(1, rank - 2) if axis not in self.attended)
        self.order = (0, *self.free, *self.attended, rank - 2, rank - 1)
        self.are_plain = rank == 4 and len(self.attended) == 1

    def _lengths(self, x: Any, axes: tuple[int, ...]) -> list[Any]:
        shape = ops.shape(x)
        return [shape[axis] for axis in axes]

    def flatten(self, x: Any) -> Any:
        """(B, .., N, H) as (batch, length, N, H)."""
        if self.are_plain:
            return x
        length = prod(self._lengths(x, self.attended))
        heads_and_dim = ops.shape(x)[-2:]
        return ops.reshape(ops.transpose(x, self.order), (-1, length, *heads_and_dim))

    def restore(self, out: Any, query: Any) -> Any:
        """(batch, length, N, H) with the axes of the query."""
        if self.are_plain:
            return out
        lengths = self._lengths(query, self.order[:-2])
        out = ops.reshape(out, (*lengths, *ops.shape(out)[-2:]))
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return ops.transpose(out, inverse)

    def restore_weights(self, weights: Any, query: Any, key: Any) -> Any:
        """(batch, N, length, length) as (B, free.., N, attended.., attended..)."""
        if self.are_plain:
            return weights
        batch = self._lengths(query, (0, *self.free))
        heads = ops.shape(weights)[1]
        lengths = (self._lengths(x, self.attended) for x in (query, key))
        return ops.reshape(weights, (*batch, heads, *(n for part in lengths for n in part)))

    def flatten_mask(self, mask: Any, query: Any, key: Any, num_heads: int) -> Any:
        """A mask of Keras, broadcastable to the weights, as one for (batch, N, length, length).

        Axes that it lacks are those before the attended ones, as Keras has it.
        """
        if mask is None:
            return None
        mask = ops.cast(mask, "bool")
        rank = 2 + len(self.free) + 2 * len(self.attended)
        for _ in range(rank - len(mask.shape)):
            mask = ops.expand_dims(mask, -2 * len(self.attended) - 1)
        if self.are_plain:
            return mask
        batch = self._lengths(query, (0, *self.free))
        rows, columns = (self._lengths(x, self.attended) for x in (query, key))
        mask = ops.broadcast_to(mask, (*batch, num_heads, *rows, *columns))
        return ops.reshape(mask, (-1, num_heads, prod(rows), prod(columns)))
