"""How widely does each query look, and how much is each key looked at? Curves of both."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ..passes import AttentionStats, attention_stats
from .canvas import ACCENT, FAINT, INK, axes_of, entitle, tidy
from .labels import common_font, label_axis, read_labels
from .weights import Array, choose, heads_of, plain, read_array

__all__ = ["entropy_curve", "key_mass_curve"]

#: More heads than these are drawn alike and faint, with their mean on top.
MOST_NAMED = 8


def entropy_curve(
    q: Any,
    k: Any = None,
    *,
    heads: Any = None,
    batch: int = 0,
    labels: Any = None,
    title: str | None = None,
    font: Any = None,
    ax: Any = None,
    **options: Any,
) -> Any:
    """The entropy of each query's weights: how widely it looks, from one key (0) to all alike.

    Parameters
    ----------
    q : array
        With `k`: the queries, as for `attnext.attention`. Alone: weights as in `heatmap`, or the
        `attnext.AttentionStats` of a call.
    k : array, optional
        The keys. The weights are never formed, see `attnext.attention_stats`.
    heads : "all", slice, int or sequence of int, optional
        Which heads; all by default. Up to 8 have a name and a colour each; more are drawn faintly
        below their mean.
    batch : int
        Which member of the batch.
    labels : sequence, optional
        Tokens of the queries; otherwise their numbers.
    title, font, ax
        As in `heatmap`.
    **options
        With `k`: see `attnext.attention`.

    Returns
    -------
    matplotlib.figure.Figure
        The left axis is in nats, the right one in keys: ``exp(entropy)``.

    Raises
    ------
    ValueError, TypeError
        As in `heatmap`.

    Examples
    --------
    >>> import numpy as np
    >>> from attnext import plot
    >>> q, k = np.random.default_rng(0).standard_normal((2, 4, 1000, 64))
    >>> figure = plot.entropy_curve(q, k, causal=True)
    """
    name = "entropy_curve"
    curves = _curves(name, "entropy", q, k, batch, options)
    ax = _draw(name, curves, heads, labels, title, font, ax)
    ax.set_xlabel("query", fontsize=9)
    ax.set_ylabel("entropy (nats)", fontsize=9)
    ax.set_ylim(bottom=0)
    right = ax.secondary_yaxis("right", functions=(_to_keys, _to_nats))
    right.set_yticks(_decades(np.exp(ax.get_ylim()[1])))
    right.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    right.set_ylabel("as many keys, alike", fontsize=9)
    tidy(right)
    return ax.figure


def key_mass_curve(
    q: Any,
    k: Any = None,
    *,
    heads: Any = None,
    batch: int = 0,
    labels: Any = None,
    title: str | None = None,
    font: Any = None,
    ax: Any = None,
    **options: Any,
) -> Any:
    """The weight that all queries together give to each key: which keys are looked at.

    Parameters
    ----------
    q, k, heads, batch, title, font, ax, **options
        As in `entropy_curve`.
    labels : sequence, optional
        Tokens of the keys; otherwise their numbers.

    Returns
    -------
    matplotlib.figure.Figure
        On a logarithmic scale where the largest is over 20 times the median.

    Raises
    ------
    ValueError, TypeError
        As in `heatmap`.

    Examples
    --------
    >>> import numpy as np
    >>> from attnext import plot
    >>> q, k = np.random.default_rng(0).standard_normal((2, 4, 1000, 64))
    >>> figure = plot.key_mass_curve(q, k, causal=True, heads=[0, 2])
    """
    name = "key_mass_curve"
    curves = _curves(name, "key_mass", q, k, batch, options)
    ax = _draw(name, curves, heads, labels, title, font, ax)
    ax.set_xlabel("key", fontsize=9)
    ax.set_ylabel("weight from all queries", fontsize=9)
    if curves.max() > 20 * np.median(curves) > 0:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0)
    return ax.figure


def _curves(name: str, field: str, q: Any, k: Any, batch: int, options: dict[str, Any]) -> Array:
    """What `field` of the statistics holds, (H, S): from q and k, statistics or weights."""
    if k is not None:
        options = {option: plain(value) for option, value in options.items()}
        q = attention_stats(plain(q), plain(k), **options)
    elif options:
        raise TypeError(f"{name}: {next(iter(options))} needs q and k; they were not given")
    if not isinstance(q, AttentionStats):
        p = heads_of(name, read_array(name, "weights", q), batch).astype(np.float64)
        if field == "key_mass":
            return np.asarray(p.sum(axis=-2))
        return np.asarray(-(p * np.log(np.where(p > 0, p, 1))).sum(axis=-1))
    values = read_array(name, field, getattr(q, field))
    rank = max(values.ndim, 1)
    return heads_of(name, values.reshape(*values.shape[: rank - 1], 1, -1), batch)[:, 0]


def _draw(
    name: str, curves: Array, heads: Any, labels: Any, title: str | None, font: Any, ax: Any
) -> Any:
    count = curves.shape[1]
    texts = read_labels(name, "labels", labels, np.arange(count), count)
    font = common_font(name, font, texts, [title or ""])
    ax = axes_of(name, ax, 8.0, 3.6)
    chosen = choose(name, "heads", heads, len(curves), len(curves))
    _draw_lines(ax, curves[chosen], chosen)
    ax.margins(x=0.015)
    ax.grid(axis="y", alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    tidy(ax)
    if texts is None:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    else:
        label_axis(ax, "x", texts, np.arange(count), font)
    entitle(ax, title, font)
    return ax


def _draw_lines(ax: Any, curves: Array, numbers: Array) -> None:
    """A line for each head; of few, each in its own colour."""
    places = np.arange(curves.shape[1])
    marker, width = ("o", 1.3) if len(places) <= 40 else (None, 0.9)
    if len(curves) > MOST_NAMED:
        for curve in curves:
            ax.plot(places, curve, color=FAINT, alpha=0.3, linewidth=0.7)
        ax.plot(places, curves.mean(axis=0), color=ACCENT, label=f"mean of {len(curves)} heads")
    else:
        colours = colormaps["viridis"](np.linspace(0, 0.85, len(curves)))
        for number, curve, colour in zip(numbers, curves, colours):
            ax.plot(
                places, curve, color=INK if len(curves) == 1 else colour, label=f"head {number}",
                linewidth=width, marker=marker, markersize=3.5,
            )  # fmt: skip
    if len(curves) > 1:
        ax.legend(
            fontsize=8, frameon=False, labelcolor=INK, loc="lower right", bbox_to_anchor=(1, 1),
            ncols=min(len(curves), 8), borderpad=0, handlelength=1.2, columnspacing=1.2,
        )  # fmt: skip


def _to_keys(nats: Any) -> Any:
    return np.exp(nats)


def _to_nats(keys: Any) -> Any:
    return np.log(np.maximum(keys, 1e-9))


def _decades(most: float) -> list[float]:
    """1, 2, 5, 10 ... of which a logarithmic axis has room for few."""
    steps = [1, 2, 5] if most < 200 else [1]
    return [s * 10**e for e in range(int(np.log10(most)) + 1) for s in steps if s * 10**e <= most]
