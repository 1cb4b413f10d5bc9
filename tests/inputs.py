"""How does a case become arrays? Drawn once for all dtypes, laid out and strided as it says."""

import zlib
from types import SimpleNamespace

import ml_dtypes
import numpy as np

DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


class Maker:
    """Draws the arrays of one case; the same ones for each dtype, up to rounding."""

    def __init__(self, case, dtype, additive_score):
        self.case, self.dtype, self.additive_score = case, dtype, additive_score
        self.rng = np.random.default_rng(zlib.crc32(case.name.encode()))
        self.num_sequences = len(case.lengths[0]) if case.lengths else case.batch
        self.seqlens = [max(x) for x in case.lengths] if case.lengths else case.seqlens
        self.sizes = dict(
            zip("bhqkd", (self.num_sequences, case.heads[0], *self.seqlens, case.dims[0]))
        )

    def inputs(self):
        case = self.case
        options = self._options()
        (heads_q, heads_k), (dim, dim_v) = case.heads, case.dims
        rows_q, rows_k = [sum(x) for x in case.lengths] if case.lengths else case.seqlens
        q, k, v = self._shaped(*_DATA[case.data](
            self.rng.normal(size=(case.batch, heads_q, rows_q, dim)),
            self.rng.normal(size=(case.batch, heads_k, rows_k, dim)),
            self.rng.normal(size=(case.batch, heads_k, rows_k, dim_v)),
        ))  # fmt: skip
        dout = self._shaped(self.rng.normal(size=(case.batch, heads_q, rows_q, dim_v)))[0]
        dlse = self.rng.normal(size=(case.batch, heads_q, rows_q)).astype(self._statistic())
        dlse = dlse.reshape(dlse.shape[4 - case.rank :])
        if case.page_size:
            k, v = self._paged(dim), self._paged(dim_v)
            options |= {"block_table": self._block_table()}
        return SimpleNamespace(q=q, k=k, v=v, dout=dout, dlse=dlse, options=options)

    def _statistic(self):
        return np.float64 if self.dtype == np.float64 else np.float32

    def _shaped(self, *arrays):
        """As the case has it; beyond the end of a sequence NaN, never to be read."""
        return [_STRIDES[self.case.strides](self._laid_out(self._poisoned(x))) for x in arrays]

    def _poisoned(self, x):
        for name in ("q_lengths", "kv_lengths"):
            is_queries = x.shape[1] == self.case.heads[0] and x.shape[2] == self.case.seqlens[0]
            if name in self.case.options and is_queries == (name == "q_lengths"):
                for b, length in enumerate(self.case.options[name]):
                    x[b, :, length:] = np.nan
        return x

    def _laid_out(self, x):
        x = x.astype(self.dtype)
        x = x.reshape(x.shape[4 - self.case.rank :])
        is_head_major = self.case.layout == "bhsd" or x.ndim == 2
        return x if is_head_major else np.ascontiguousarray(np.swapaxes(x, -3, -2))

    def _paged(self, dim):
        pages = self.rng.normal(
            size=(self._num_pages() + 3, self.case.page_size, self.case.heads[1], dim)
        )
        used = np.unique(self._block_table()[self._block_table() >= 0])
        pages[np.setdiff1d(np.arange(len(pages)), used)] = np.nan
        return _STRIDES[self.case.strides](pages.astype(self.dtype))

    def _num_pages(self):
        return sum(-(-length // self.case.page_size) for length in self.case.options["kv_lengths"])

    def _block_table(self):
        """Pages in a shuffled order, entries past the last one in use out of range."""
        order = np.random.default_rng(1).permutation(self._num_pages() + 3)
        longest = max(
            -(-length // self.case.page_size) for length in self.case.options["kv_lengths"]
        )
        table, first = np.full((self.case.batch, longest + 1), -1, np.int32), 0
        for b, length in enumerate(self.case.options["kv_lengths"]):
            count = -(-length // self.case.page_size)
            table[b, :count] = order[first : first + count]
            first += count
        return table

    def _array(self, pattern):
        return self.rng.normal(
            size=tuple(1 if axis == "." else self.sizes[axis] for axis in pattern)
        )

    def _options(self):
        case, options = self.case, dict(self.case.options)
        if "mask" in options:
            options["mask"] = self._array(options["mask"]) > -0.6
        if "bias" in options:
            bias = self._array(options["bias"])
            bias[self.rng.random(bias.shape) < case.bias_hole] = -np.inf
            options["bias"] = bias.astype(
                DTYPES[case.bias_dtype] if case.bias_dtype else self.dtype
            )
        for name in ("scale", "alibi_slopes", "sinks"):
            if isinstance(options.get(name), str):
                options[name] = (0.5 + 0.5 * self._array(options[name]) ** 2).astype(
                    self._statistic()
                )
        score = options.get("score", "dot")
        if score.startswith("additive"):
            learned = [
                self._array(pattern).astype(self._statistic()) for pattern in score.split(":")[1:]
            ]
            options["score"] = self.additive_score(*learned)
        for name in ("q_lengths", "kv_lengths"):
            if name in options:
                options[name] = np.array(options[name], np.int32)
        for name, lengths in zip(("cu_seqlens_q", "cu_seqlens_k"), case.lengths):
            options[name] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        if case.layout != "bhsd":
            options["layout"] = case.layout
        return options


def _growing(q, k, v):
    """Scores that grow with the key: the running maximum rises in every block."""
    k[:] = np.abs(k[..., :1, :]) * np.linspace(0.1, 4, k.shape[2])[:, None]
    return np.abs(q), k, v


def _spike(q, k, v):
    """One late key takes all the weight: what was gathered before it is rescaled to nothing."""
    k[..., -2, :] = 12.0
    return np.abs(q), k, v


def _first(q, k, v):
    """The first key outweighs all later ones."""
    k[..., 0, :] = 12.0
    return np.abs(q), k, v


def _twins(q, k, v):
    """Some keys equal a query: where -|q - k| has no derivative."""
    count = min(q.shape[2], k.shape[2])
    k[:, :, :count:2] = q[:, : k.shape[1], :count:2]
    return q, k, v


def _zeros(q, k, v):
    """Some zero vectors: where cosine has no direction."""
    q[..., ::3, :], k[..., 1::4, :] = 0, 0
    return q, k, v


def _large(q, k, v):
    return 4 * q, 4 * k, 100 * v


_DATA = {
    "normal": lambda *qkv: qkv,
    "growing": _growing,
    "spike": _spike,
    "first": _first,
    "twins": _twins,
    "zeros": _zeros,
    "large": _large,
}


def _spread(x):
    """Every second element of the last axis of a wider array."""
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1] + 1), np.nan, x.dtype)
    wide[..., 1::2] = x
    return wide[..., 1::2]


def _shifted(x):
    """In memory that starts one element after an aligned address, with gaps between the rows."""
    wide = np.full((*x.shape[:-1], x.shape[-1] + 3), np.nan, x.dtype)
    wide[..., 1:-2] = x
    return wide[..., 1:-2]


_STRIDES = {
    "plain": lambda x: x,
    "reversed": lambda x: np.ascontiguousarray(x[..., ::-1, ::-1])[..., ::-1, ::-1],
    "transposed": lambda x: np.ascontiguousarray(np.swapaxes(x, -1, -2)).swapaxes(-1, -2),
    "interleaved": lambda x: np.ascontiguousarray(np.moveaxis(x, 1, 2)).swapaxes(1, 2),
    "broadcast_heads": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "broadcast_rows": lambda x: np.broadcast_to(x[..., :1, :], x.shape),
    "fortran": np.asfortranarray,
    "spread": _spread,
    "shifted": _shifted,
}
