"""Which query may attend which key, and where do they lie? Any layout, as plain sequences."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import scores


@dataclass
class Options:
    """The options of a call, with their defaults."""

    score: Any = "dot"
    scale: Any = None
    causal: Any = False
    q_offset: Any = None
    window: Any = None
    softcap: Any = None
    mask: Any = None
    bias: Any = None
    alibi_slopes: Any = None
    sinks: Any = None
    dropout: float = 0.0
    seed: Any = None
    q_lengths: Any = None
    kv_lengths: Any = None
    cu_seqlens_q: Any = None
    cu_seqlens_k: Any = None
    block_table: Any = None
    layout: str = "bhsd"


class Arithmetic:
    """The precision of a naive formula: what inputs are rounded to, and what is computed in."""

    def __init__(self, dtype):
        self.dtype = np.dtype(np.float64 if dtype is None else dtype)
        self.is_exact = self.dtype.itemsize >= 8
        self.work = self.dtype if self.is_exact else np.dtype(np.float32)

    def wide(self, x):
        """Take x as it is, into the arithmetic."""
        return np.asarray(x).astype(self.work)

    def rounded(self, x):
        """Round x to the precision asked for."""
        return np.asarray(x).astype(self.dtype).astype(self.work)


@dataclass
class Sequence:
    """One sequence of the batch, in arrays of its own length."""

    index: int
    place_q: tuple  # where its queries are in an array (B, H, S, ..)
    place_k: tuple
    q: np.ndarray  # (Hq, Sq, D)
    k: np.ndarray  # (Hq, Sk, D): the head of each group is repeated
    distance: np.ndarray  # (Sq, Sk): position of the query minus position of the key
    visible: np.ndarray  # (Hq, Sq, Sk) bool
    bias: np.ndarray  # (Hq, Sq, Sk)


class Problem:
    """q, k and options, understood. Arrays are (B, H, S, D); packed: (1, H, total, D)."""

    def __init__(self, q, k, dtype, options):
        self.options = o = Options(**options)
        self.number = Arithmetic(dtype)
        self.rank = np.ndim(q)
        self.is_paged, self.is_packed = o.block_table is not None, o.layout == "thd"
        self.q, self.k = self.canonical(q), self.canonical_keys(k)
        self.num_heads_q, self.head_dim = self.q.shape[1], self.q.shape[3]
        self.group_size = self.num_heads_q // self.k.shape[1]
        self._measure()
        self.score = self._score()
        self.scale = self._scale()
        self.slopes = None if o.alibi_slopes is None else self._per_batch(o.alibi_slopes)
        self.sinks = None if o.sinks is None else self.number.wide(o.sinks)

    # Layouts

    def canonical(self, x):
        """Bring x to (B, H, S, D), rounded to the precision asked for."""
        x = self._swapped(self.number.rounded(x))
        return x.reshape((1,) * (4 - x.ndim) + x.shape)

    def _swapped(self, x):
        is_head_major = self.options.layout == "bhsd" or x.ndim == 2
        return x if is_head_major else np.swapaxes(x, -3, -2)

    def canonical_keys(self, x):
        """Bring k or v to (B, Hk, Sk, D); pages are laid one after another."""
        if not self.is_paged:
            return self.canonical(x)
        table, pages = np.asarray(self.options.block_table), self.number.rounded(x)
        lengths = np.asarray(self.options.kv_lengths)
        page_size = pages.shape[1]
        is_used = np.arange(table.shape[1]) * page_size < lengths[:, None]
        gathered = np.zeros((*table.shape, *pages.shape[1:]), pages.dtype)
        gathered[is_used] = pages[table[is_used]]
        gathered = gathered.reshape(table.shape[0], table.shape[1] * page_size, *pages.shape[2:])
        return np.swapaxes(gathered[:, : lengths.max(initial=0)], 1, 2)

    def original(self, x):
        """Return x from (B, H, S, D) to the caller's layout and rank."""
        return self._swapped(x.reshape(x.shape[4 - self.rank :]))

    def original_rows(self, x):
        """Return x from (B, H, S, ..) to the axes that the caller's rank has."""
        return x.reshape(x.shape[4 - self.rank :])

    # Sizes

    def _measure(self):
        o = self.options
        if self.is_packed:
            self.starts_q, self.starts_k = np.asarray(o.cu_seqlens_q), np.asarray(o.cu_seqlens_k)
            self.lengths_q, self.lengths_k = np.diff(self.starts_q), np.diff(self.starts_k)
            longest = [int(x.max(initial=0)) for x in (self.lengths_q, self.lengths_k)]
        else:
            longest = [self.q.shape[2], self.k.shape[2]]
            batch = self.q.shape[0]
            self.lengths_q = (
                np.full(batch, longest[0]) if o.q_lengths is None else np.asarray(o.q_lengths)
            )
            self.lengths_k = (
                np.full(batch, longest[1]) if o.kv_lengths is None else np.asarray(o.kv_lengths)
            )
        self.num_sequences = len(self.lengths_q)
        self.score_shape = (self.num_sequences, self.num_heads_q, *longest)

    def _per_batch(self, x):
        return np.broadcast_to(self.number.wide(x), (self.num_sequences, self.num_heads_q))

    def _scale(self):
        scale = self.options.scale
        if scale is None:
            scale = self.head_dim**-0.5 if self.options.score == "dot" else 1.0
        return np.broadcast_to(self.number.wide(scale), (self.num_heads_q,))

    def _score(self):
        score = self.options.score
        if isinstance(score, str):
            return scores.NAMED[score]()
        shape = (self.num_heads_q, self.head_dim)
        bias = np.zeros(shape) if score.bias is None else score.bias
        return scores.Additive(
            *(np.broadcast_to(self.number.wide(x), shape) for x in (score.weight, bias))
        )

    # Sequences

    def sequences(self):
        """Go through the sequences of the batch."""
        for b in range(self.num_sequences):
            yield self._sequence(b)

    def _sequence(self, b):
        len_q, len_k = int(self.lengths_q[b]), int(self.lengths_k[b])
        if self.is_packed:
            place_q = (0, slice(None), slice(self.starts_q[b], self.starts_q[b + 1]))
            place_k = (0, slice(None), slice(self.starts_k[b], self.starts_k[b + 1]))
        else:
            place_q, place_k = (b, slice(None), slice(len_q)), (b, slice(None), slice(len_k))
        distance = np.arange(len_q)[:, None] + self._diagonal(b, len_q, len_k) - np.arange(len_k)
        bias = self._of_sequence(self.options.bias, 0, b, len_q, len_k)
        visible = self._in_window(distance) & self._of_sequence(
            self.options.mask, True, b, len_q, len_k
        )
        return Sequence(
            index=b, place_q=place_q, place_k=place_k, q=self.q[place_q],
            k=np.repeat(self.k[place_k], self.group_size, axis=0), distance=distance,
            visible=visible & (bias != -np.inf), bias=bias,
        )  # fmt: skip

    def _diagonal(self, b, len_q, len_k):
        """Give the key position of the first query."""
        if self.options.q_offset is not None:
            return int(np.broadcast_to(self.options.q_offset, self.num_sequences)[b])
        return 0 if self.options.causal == "top_left" else len_k - len_q

    def _in_window(self, distance):
        left, right = (-1, -1) if self.options.window is None else self.options.window
        left, right = (-1 if side is None else side for side in (left, right))
        if self.options.causal:
            right = 0
        visible = np.ones(distance.shape, bool)
        if left >= 0:
            visible &= distance <= left
        if right >= 0:
            visible &= distance >= -right
        return visible

    def _of_sequence(self, x, absent, b, len_q, len_k):
        """Take one sequence's part of a mask or bias.

        Each axis has the longest sequence's length or 1; with a block table, the keys' axis may
        have max_pages * page_size instead.
        """
        x = np.asarray(absent if x is None else x)
        x = x if x.dtype == bool else self.number.wide(x)
        x = x.reshape((1,) * (4 - x.ndim) + x.shape)
        x = x[b if x.shape[0] > 1 else 0, :, : max(len_q, 1), : max(len_k, 1)]
        return np.broadcast_to(x, (self.num_heads_q, len_q, len_k))
