"""Which weights does a picture show? Those given, or those of the chosen rows, computed for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..arguments import integer
from ..attention import AdditiveScore
from ..libraries import is_array, to_numpy
from ..passes import attention_weights

Array = np.ndarray[Any, Any]

#: More rows than these are computed only for who asks: a square of a long sequence is no picture.
MAX_ROWS = 64


class Shown(NamedTuple):
    """Weights `p` (H, R, K) with the numbers of their queries and keys, of how many there are."""

    p: Array
    rows: Array
    keys: Array
    num_queries: int
    num_keys: int


def plain(value: Any) -> Any:
    """`value` without what only training needs; a picture has no gradient."""
    if isinstance(value, AdditiveScore):
        return AdditiveScore(plain(value.weight), plain(value.bias))
    return value.detach() if getattr(value, "requires_grad", False) else value


def read_array(function: str, name: str, value: Any) -> Array:
    """An array of any library and device, or nested lists of numbers, as one of NumPy's."""
    value = plain(value)
    if hasattr(value, "cpu"):
        value = value.cpu()
    array = to_numpy(value) if is_array(value) else np.asarray(value)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{function}: {name} must be numbers, found {array.dtype}")
    return array


def select(
    function: str,
    q: Any,
    k: Any,
    *,
    rows: Any,
    keys: Any,
    batch: int,
    options: dict[str, Any],
) -> Shown:
    """The weights a picture is asked for: `q` holds them where `k` is None."""
    if k is None:
        if options:
            name = next(iter(options))
            raise TypeError(f"{function}: {name} needs q and k; weights alone were given")
        p = read_array(function, "weights", q)
        num_queries = p.shape[-2] if p.ndim >= 2 else 0
        chosen = choose(function, "rows", rows, num_queries, num_queries)
        p = heads_of(function, p, batch)[:, chosen]
    else:
        q, k = plain(q), plain(k)
        options = {name: plain(value) for name, value in options.items()}
        num_queries = length(function, q, options.get("layout", "bhsd"))
        chosen = choose(function, "rows", rows, num_queries, MAX_ROWS)
        p = attention_weights(q, k, rows=chosen.tolist(), **options)
        p = heads_of(function, read_array(function, "weights", p), batch)
    shown = choose(function, "keys", keys, p.shape[-1], p.shape[-1])
    return Shown(p[..., shown], chosen, shown, num_queries, p.shape[-1])


def choose(function: str, name: str, wanted: Any, count: int, most: int) -> Array:
    """Numbers below `count`: those wanted; by default all, or `most` of them evenly spread."""
    if isinstance(wanted, str) and wanted == "all":
        return np.arange(count)
    if wanted is None:
        return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
    numbers = np.atleast_1d(np.arange(count)[wanted] if isinstance(wanted, slice) else wanted)
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1 or not numbers.size:
        raise TypeError(f"{function}: {name} must be 'all', a slice, or integers, found {wanted!r}")
    if numbers.min() < -count or numbers.max() >= count:
        wrong = numbers.min() if numbers.min() < -count else numbers.max()
        raise ValueError(f"{function}: {name} must be in [{-count}, {count}), found {wrong}")
    return np.where(numbers < 0, numbers + count, numbers)


def heads_of(function: str, p: Array, batch: int) -> Array:
    """Weights of any rank as (H, R, K): those of one member of the batch."""
    if p.ndim not in (2, 3, 4) or not p.size:
        raise ValueError(
            f"{function}: weights must be (R, K), (H, R, K) or (B, H, R, K), none of them 0, "
            f"found shape {p.shape}"
        )
    p = p[None] if p.ndim == 2 else p
    count = p.shape[0] if p.ndim == 4 else 1
    number = integer(function, "batch", batch)
    if not -count <= number < count:
        raise ValueError(f"{function}: batch must be in [{-count}, {count}), found {number}")
    return p[number] if p.ndim == 4 else p


def length(function: str, q: Any, layout: str) -> int:
    """How many queries there are."""
    shape: Sequence[int] = getattr(q, "shape", ())
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"{function}: q must have 2 to 4 axes, found shape {tuple(shape)}")
    return int(shape[-2 if len(shape) == 2 or layout == "bhsd" else -3])


def one_head(function: str, p: Array, head: Any) -> Array:
    """(R, K) of the head asked for, or the mean of all."""
    if isinstance(head, str) and head == "mean":
        return np.asarray(p.mean(axis=0, dtype=np.float64))
    return np.asarray(p[choose(function, "head", integer(function, "head", head), len(p), 1)[0]])
