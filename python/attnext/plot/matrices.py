"""What do the weights of chosen queries and heads look like? Heat map, head and alignment view."""

from __future__ import annotations

from typing import Any

import numpy as np

from .canvas import axes_of, entitle, figure_of, tidy
from .cells import FEW_CELLS, colour_bar, colour_scale, draw_cells, pooled
from .labels import LINE, common_font, label_axis, read_labels, width_of
from .weights import Array, Shown, choose, one_head, select

__all__ = ["alignment_view", "head_view", "heatmap"]


def heatmap(
    q: Any,
    k: Any = None,
    *,
    rows: Any = None,
    keys: Any = None,
    head: Any = "mean",
    batch: int = 0,
    query_labels: Any = None,
    key_labels: Any = None,
    title: str | None = None,
    annotate: bool = False,
    cmap: Any = None,
    vmax: float | None = None,
    norm: Any = None,
    font: Any = None,
    ax: Any = None,
    **options: Any,
) -> Any:
    """The weights of one head as a heat map: a row for each query, a column for each key.

    Parameters
    ----------
    q : array
        With `k`: the queries, as for `attnext.attention`. Alone: weights (R, K), (H, R, K) or (B,
        H, R, K), of any library.
    k : array, optional
        The keys. Only the rows shown are computed.
    rows, keys : "all", slice, int or sequence of int, optional
        Which to show, in this order; negative numbers count from the end. By default all keys, and
        all rows of weights or of up to 64 queries, 64 evenly spread ones of more.
    head : int or "mean"
        Which head; by default the mean of all.
    batch : int
        Which member of the batch.
    query_labels, key_labels : sequence, optional
        Tokens: one for each query and key, or one for each of those shown. Otherwise their numbers.
    title : str, optional
        Above the picture.
    annotate : bool
        Write each weight into its cell, in hundredths.
    cmap : str or matplotlib.colors.Colormap, optional
        Light to dark by default.
    vmax : float, optional
        The weight of the darkest colour. By default the largest, or less where a few tower above
        all others, which the arrow of the colour bar then says.
    norm : matplotlib.colors.Normalize, optional
        From weight to colour, instead of `vmax`; for instance ``LogNorm(1e-4, 1)``.
    font : str or path, optional
        A family or a file. By default the usual font, or one found here that has the labels'
        characters.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default alone on a new figure.
    **options
        With `k`: see `attnext.attention`.

    Returns
    -------
    matplotlib.figure.Figure
        Neither shown nor kept by pyplot; ``figure.savefig("weights.png")`` writes it.

    Raises
    ------
    ValueError, TypeError
        Labels or numbers that do not fit the weights; options without `k`; otherwise as
        `attnext.attention_weights`.

    Notes
    -----
    Of more than 1024 queries or keys, each cell shows the largest weight of a block; the axis says
    of how many.

    Examples
    --------
    >>> import numpy as np
    >>> from attnext import plot
    >>> q, k = np.random.default_rng(0).standard_normal((2, 8, 100, 64))
    >>> figure = plot.heatmap(q, k, causal=True, rows=range(20), keys=range(20), head=3)
    """
    name = "heatmap"
    shown = select(name, q, k, rows=rows, keys=keys, batch=batch, options=options)
    p = one_head(name, shown.p, head)
    down, along = _read_both(name, shown, query_labels, key_labels)
    font = common_font(name, font, down, along, [title or ""])
    ax = axes_of(name, ax, *_size(p.shape, down, along))
    scale = colour_scale(p, vmax, norm, cmap)
    image = _draw(ax, p, shown, down, along, scale, font, annotate)
    colour_bar(ax.figure, image, ax, scale.is_cut)
    entitle(ax, title, font)
    return ax.figure


def alignment_view(
    q: Any,
    k: Any = None,
    *,
    source: Any,
    target: Any,
    rows: Any = None,
    keys: Any = None,
    head: Any = "mean",
    batch: int = 0,
    title: str | None = None,
    annotate: bool = False,
    cmap: Any = None,
    vmax: float | None = 1.0,
    font: Any = None,
    ax: Any = None,
    **options: Any,
) -> Any:
    """Which source words each target word attended to, as in the figure of Bahdanau et al. (2015).

    Parameters
    ----------
    q, k, rows, keys, head, batch, title, annotate, cmap, font, ax, **options
        As in `heatmap`; queries are target words, keys are source words.
    source, target : sequence
        The words, or any tokens: along the top and down the left side.
    vmax : float, optional
        The weight of the darkest colour; None: as in `heatmap`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError, TypeError
        As in `heatmap`.

    Examples
    --------
    >>> from attnext import plot
    >>> weights = [[0.9, 0.1, 0.0], [0.1, 0.2, 0.7], [0.0, 0.8, 0.2]]
    >>> figure = plot.alignment_view(
    ...     weights, source=["the", "white", "house"], target=["la", "maison", "blanche"])
    """
    name = "alignment_view"
    shown = select(name, q, k, rows=rows, keys=keys, batch=batch, options=options)
    p = one_head(name, shown.p, head)
    down = read_labels(name, "target", target, shown.rows, shown.num_queries)
    along = read_labels(name, "source", source, shown.keys, shown.num_keys)
    font = common_font(name, font, down, along, [title or ""])
    ax = axes_of(name, ax, *_size(p.shape, down, along))
    scale = colour_scale(p, vmax, None, cmap)
    image = _draw(ax, p, shown, down, along, scale, font, annotate, is_above=True)
    ax.set_xlabel("source", fontsize=9)
    ax.set_ylabel("target", fontsize=9)
    colour_bar(ax.figure, image, ax, scale.is_cut)
    entitle(ax, title, font)
    return ax.figure


def head_view(
    q: Any,
    k: Any = None,
    *,
    rows: Any = None,
    keys: Any = None,
    heads: Any = None,
    batch: int = 0,
    query_labels: Any = None,
    key_labels: Any = None,
    columns: int | None = None,
    title: str | None = None,
    cmap: Any = None,
    vmax: float | None = None,
    norm: Any = None,
    font: Any = None,
    figure: Any = None,
    **options: Any,
) -> Any:
    """A small heat map for each head, side by side on one scale of colours.

    Parameters
    ----------
    q, k, rows, keys, batch, query_labels, key_labels, title, cmap, vmax, norm, font, **options
        As in `heatmap`.
    heads : "all", slice, int or sequence of int, optional
        Which heads; by default all of up to 16, 16 evenly spread ones of more.
    columns : int, optional
        How many side by side; by default at most 4.
    figure : matplotlib.figure.Figure or SubFigure, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError, TypeError
        As in `heatmap`.

    Examples
    --------
    >>> import numpy as np
    >>> from attnext import plot
    >>> q, k = np.random.default_rng(0).standard_normal((2, 8, 20, 64))
    >>> figure = plot.head_view(q, k, causal=True, heads=[0, 1, 5, 7])
    """
    name = "head_view"
    shown = select(name, q, k, rows=rows, keys=keys, batch=batch, options=options)
    chosen = choose(name, "heads", heads, len(shown.p), 16)
    p = shown.p[chosen]
    down, along = _read_both(name, shown, query_labels, key_labels)
    font = common_font(name, font, down, along, [title or ""])
    wide = max(1, min(len(p), 4 if columns is None else columns))
    tall = -(-len(p) // wide)
    width, height = _size(p.shape[1:], down, along, largest=3.2)
    figure = figure_of(name, figure, wide * width, tall * height)
    panels = figure.subplots(tall, wide, squeeze=False)
    scale = colour_scale(p, vmax, norm, cmap)
    for number, ax in enumerate(panels.flat):
        if number >= len(p):
            ax.remove()
            continue
        image = _draw(ax, p[number], shown, down, along, scale, font, False, size=7)
        ax.set_title(f"head {chosen[number]}", loc="left", fontsize=9)
        _keep_outer_labels(ax, number, wide, len(p))
    colour_bar(figure, image, panels.ravel().tolist()[: len(p)], scale.is_cut)
    entitle(figure, title, font, size=12)
    return figure


def _keep_outer_labels(ax: Any, number: int, wide: int, count: int) -> None:
    """What neighbours share is written once: at the left, and below the last of each column."""
    if number % wide:
        ax.set_yticklabels([])
        ax.set_ylabel("")
    if number + wide < count:
        ax.set_xticklabels([])
        ax.set_xlabel("")


def _read_both(
    name: str, shown: Shown, query_labels: Any, key_labels: Any
) -> tuple[list[str] | None, list[str] | None]:
    return (
        read_labels(name, "query_labels", query_labels, shown.rows, shown.num_queries),
        read_labels(name, "key_labels", key_labels, shown.keys, shown.num_keys),
    )


def _size(
    shape: tuple[int, ...], down: Any, along: Any, largest: float = 9.0
) -> tuple[float, float]:
    """Width and height in inches in which a line of text fits beside each cell, if they are few."""
    rows, columns = (max(1.6, min(largest, 1.5 * LINE * count)) for count in shape)
    return columns + min(width_of(down), 2.2) + 1.4, rows + 0.7 * min(width_of(along), 2.2) + 0.8


def _draw(
    ax: Any,
    p: Array,
    shown: Shown,
    down: list[str] | None,
    along: list[str] | None,
    scale: Any,
    font: Any,
    annotate: bool,
    *,
    is_above: bool = False,
    size: float = 9,
) -> Any:
    """One matrix with its labels; returns the image."""
    cells, tall, wide = pooled(p)
    is_square = max(cells.shape) <= FEW_CELLS or cells.shape[0] == cells.shape[1]
    image = draw_cells(ax, cells, scale, aspect="equal" if is_square else "auto", annotate=annotate)
    tidy(ax)
    if is_above:
        ax.xaxis.tick_top()
        ax.xaxis.set_label_position("top")
    for side, labels, numbers, block in (
        ("y", down, shown.rows, tall),
        ("x", along, shown.keys, wide),
    ):
        firsts = numbers[::block]
        texts = None if labels is None else labels[::block]
        label_axis(ax, side, texts, firsts, font, is_above=is_above, size=size)
    if down is None:
        ax.set_ylabel(_axis_name("query", shown.rows, shown.num_queries, tall), fontsize=size)
    if along is None:
        ax.set_xlabel(_axis_name("key", shown.keys, shown.num_keys, wide), fontsize=size)
    return image


def _axis_name(name: str, numbers: Array, count: int, block: int) -> str:
    """What an axis counts, and what of it is not seen."""
    if block > 1:
        return f"{name} (the largest weight of each {block})"
    if len(numbers) < count and not np.array_equal(np.diff(numbers), np.ones(len(numbers) - 1)):
        return f"{name} ({len(numbers):,} of {count:,})"
    return name
