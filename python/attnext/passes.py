"""What else is asked of the same problem? Weights, statistics, merging, explaining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _core
from .arguments import integer, items
from .options import kernel_backend, pack_options, take_options

if TYPE_CHECKING:
    from .attention import Backend, Layout

__all__ = [
    "AttentionStats",
    "attention_stats",
    "attention_weights",
    "dropout_mask",
    "explain",
    "merge_attention",
]


class AttentionStats(NamedTuple):
    """Per query `lse`, `row_max` (of the final score) and `entropy`; per key `key_mass`."""

    lse: Any
    row_max: Any
    entropy: Any
    key_mass: Any


@take_options
def attention_weights(q: Any, k: Any, *, rows: Any = None, **options: Any) -> Any:
    """The weights ``p = exp(s - lse)`` of the query rows asked for.

    Parameters
    ----------
    q, k : array
        See `attention`.
    rows : sequence of int, optional
        Query rows, in any order and more than once if you like; negative ones count from the end.
        None: all. Layout "thd": along the packed axis.
    **options
        See `attention`. Dropout is not applied.

    Returns
    -------
    p : array (B, Hq, len(rows), Sk)
        In q's library and dtype, without the axes that rank 3 and 2 lack. Layout "thd": (Hq,
        len(rows), longest Sk), zero beyond the keys of a row's own sequence.

    Raises
    ------
    ValueError
        A row that q does not have; otherwise as in `attention`.
    TypeError, NotImplementedError, RuntimeError
        As in `attention`.

    Examples
    --------
    >>> import numpy as np
    >>> import attnext
    >>> q, k = np.random.default_rng(0).standard_normal((2, 8, 100, 64))
    >>> p = attnext.attention_weights(q, k, rows=[-1, 0], causal=True)
    >>> p.shape, bool(np.allclose(p.sum(-1), 1))
    ((8, 2, 100), True)
    """
    values, is_reference = pack_options("attention_weights", options)
    if is_reference:
        from .reference_backend import run_weights

        return run_weights(q, k, rows, values)
    return _core.weights(q, k, values, rows)


@take_options
def attention_stats(q: Any, k: Any, **options: Any) -> AttentionStats:
    """How the weights are spread, without forming them.

    Parameters
    ----------
    q, k : array
        See `attention`.
    **options
        See `attention`. Dropout is not applied.

    Returns
    -------
    AttentionStats
        ``lse``, ``row_max`` (the largest final score) and ``entropy`` (of p, in nats), each (B, Hq,
        Sq), and ``key_mass`` (p summed over the queries), (B, Hq, Sk), in q's library, float32
        (float64 for float64). Layout "thd": (Hq, total). A query without visible keys has ``row_max
        = -inf`` and ``entropy = 0``.

    Raises
    ------
    ValueError, TypeError, NotImplementedError, RuntimeError
        As in `attention`.

    Examples
    --------
    >>> import numpy as np
    >>> import attnext
    >>> zeros = np.zeros((4, 8))
    >>> attnext.attention_stats(zeros, zeros).entropy.round(4)
    array([1.3863, 1.3863, 1.3863, 1.3863])
    """
    values, is_reference = pack_options("attention_stats", options)
    if is_reference:
        from .reference_backend import run_stats

        return AttentionStats(*run_stats(q, k, values))
    return AttentionStats(*_core.stats(q, k, values))


def merge_attention(
    outs: Sequence[Any],
    lses: Sequence[Any],
    *,
    layout: Layout = "bhsd",
    backend: Backend = None,
) -> tuple[Any, Any]:
    """Joins results over disjoint sets of keys into the result over all of them.

    Parameters
    ----------
    outs, lses : sequence of arrays
        What `attention` returned for each set with ``return_lse=True``.
    layout : {"bhsd", "bshd", "thd"}
        Of the outs.
    backend : {None, "cpu", "cuda", "cuda-emulated"}
        None: where the outs live.

    Returns
    -------
    out, lse : array
        ``lse = log(sum_i exp(lse_i))`` and ``out = sum_i out_i exp(lse_i - lse)``, in the type of
        ``outs[0]``.

    Raises
    ------
    ValueError, TypeError
        Nothing to merge, or arrays that do not belong together.

    Notes
    -----
    A set in which a row had no visible key (lse = -inf) contributes nothing to it. Give sinks to
    one set only.

    Examples
    --------
    >>> import numpy as np
    >>> import attnext
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 10, 16))
    >>> halves = [attnext.attention(q, k[i::2], v[i::2], return_lse=True) for i in range(2)]
    >>> out, lse = attnext.merge_attention(*zip(*halves))
    >>> bool(np.allclose(out, attnext.attention(q, k, v)))
    True
    """
    name = "merge_attention"
    chosen = kernel_backend(name, backend)
    return _core.merge(items(name, "outs", outs), items(name, "lses", lses), layout, chosen)


def dropout_mask(
    shape: Sequence[int], dropout: float, seed: int, *, stream: int = 0, backend: Backend = None
) -> Any:
    """The weights that dropout keeps: the same bits as in every kernel.

    Parameters
    ----------
    shape : (B, Hq, Sq, Sk), (Hq, Sq, Sk) or (Sq, Sk)
        Of the weights. Packed sequences: (number of sequences, Hq, longest Sq, longest Sk).
    dropout : float
        Probability in [0, 1].
    seed : int
        In [0, 2**64).
    stream : int
        0, or 1 for the keys' side of `bidirectional_attention`.
    backend : {None, "cpu", "cuda", "cuda-emulated"}
        Which draws them; the bits do not depend on it.

    Returns
    -------
    numpy.ndarray of bool
        True where a weight is kept.

    Raises
    ------
    ValueError, TypeError
        A shape, probability, seed or stream out of range.

    Notes
    -----
    Philox4x32-10 (Salmon et al., 2011), keyed by the seed and counted by position, so that tiles,
    threads, packing and devices make no difference.

    Examples
    --------
    >>> import attnext
    >>> keep = attnext.dropout_mask((2, 4, 100, 100), 0.25, seed=1)
    >>> round(float(keep.mean()), 2)
    0.75
    """
    axes = items("dropout_mask", "shape", shape)
    number = integer("dropout_mask", "stream", stream)
    if number not in (0, 1):
        raise ValueError(f"dropout_mask: stream must be 0 or 1, found {number}")
    chosen = kernel_backend("dropout_mask", backend)
    return _core.dropout_mask(axes, dropout, seed, number, chosen)


@take_options
def explain(q: Any, k: Any, v: Any, **options: Any) -> dict[str, Any]:
    """Which kernel `attention` would run for these arguments, and why. Nothing is computed.

    Parameters
    ----------
    q, k, v : array
        See `attention`.
    **options
        See `attention`.

    Returns
    -------
    dict
        Among others "backend", "isa" and "why".

    Raises
    ------
    ValueError, TypeError, NotImplementedError, RuntimeError
        As `attention` would.

    Examples
    --------
    >>> import numpy as np
    >>> import attnext
    >>> q = np.zeros((4, 8))
    >>> attnext.explain(q, q, q)["backend"]
    'cpu'
    """
    import json  # costs more to import than anything else here, and few programs ask

    values, is_reference = pack_options("explain", options)
    facts: dict[str, Any] = json.loads(_core.explain(q, k, v, values))
    if is_reference:
        return {"backend": "reference", "why": "backend='reference' asks for it"}
    return facts
