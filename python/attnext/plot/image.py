"""Where in a picture does a query look? Weights of patches or regions laid over the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from .canvas import entitle, figure_of, tidy
from .cells import colour_bar
from .labels import common_font, read_labels
from .weights import Array, one_head, read_array, select

__all__ = ["image_view"]

GLOW = "inferno"


def image_view(
    image: Any,
    q: Any,
    k: Any = None,
    *,
    grid: tuple[int, int] | None = None,
    boxes: Any = None,
    first: int = 0,
    rows: Any = None,
    head: Any = "mean",
    batch: int = 0,
    query_labels: Any = None,
    columns: int | None = None,
    title: str | None = None,
    is_smooth: bool = False,
    font: Any = None,
    figure: Any = None,
    **options: Any,
) -> Any:
    """The picture once for each query, bright where the query looks.

    Parameters
    ----------
    image : array (height, width), (height, width, 3) or (height, width, 4)
        Grey of any range, or colours in [0, 1] or of uint8.
    q, k, rows, head, batch, font, **options
        As in `heatmap`; keys are parts of the picture. By default all rows of up to 64.
    grid : (int, int), optional
        Keys are patches, row by row, this many down and across. By default as many both ways.
    boxes : array (keys, 4), optional
        Keys are regions instead: left, top, right, bottom of each, in pixels. Where they overlap,
        the larger weight shows.
    first : int
        The key that is the first patch; those before it, as a class token, are no part of the
        picture. What follows the last patch is not shown either.
    query_labels : sequence, optional
        A word for each query, or for each of those shown; otherwise their numbers.
    columns : int, optional
        How many pictures side by side; by default at most 5.
    title : str, optional
        Above all.
    is_smooth : bool
        Blend from patch to patch rather than showing their edges; not for `boxes`.
    figure : matplotlib.figure.Figure or SubFigure, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.figure.Figure
        The unmarked picture first; then each query on its own scale, from nothing to its largest
        weight, which is written above it.

    Raises
    ------
    ValueError, TypeError
        An image, grid or boxes that do not fit; otherwise as in `heatmap`.

    Examples
    --------
    >>> import numpy as np
    >>> from attnext import plot
    >>> picture = np.random.default_rng(0).random((64, 64, 3))
    >>> weights = np.random.default_rng(0).dirichlet(np.ones(16), size=2)
    >>> figure = plot.image_view(picture, weights, query_labels=["sky", "dog"])
    """
    name = "image_view"
    picture = _read_image(name, image)
    shown = select(name, q, k, rows=rows, keys=None, batch=batch, options=options)
    p = one_head(name, shown.p, head)
    labels = read_labels(name, "query_labels", query_labels, shown.rows, shown.num_queries)
    titles = labels or [f"query {number:,}" for number in shown.rows]
    font = common_font(name, font, titles, [title or ""])
    panes = _panes(name, p, picture.shape, grid, boxes, first)
    wide = max(1, min(len(p) + 1, 5 if columns is None else columns))
    tall = -(-(len(p) + 1) // wide)
    height = 2.3 * picture.shape[0] / picture.shape[1]
    figure = figure_of(name, figure, 2.3 * wide + 0.9, tall * (height + 0.35) + 0.3)
    panels = figure.subplots(tall, wide, squeeze=False)
    for ax in panels.flat[len(p) + 1 :]:
        ax.remove()
    shown_panels = panels.ravel().tolist()[: len(p) + 1]
    _show_picture(shown_panels[0], picture, is_dimmed=False)
    for ax, pane, text in zip(shown_panels[1:], panes, titles):
        _show_glow(ax, picture, pane, boxes, is_smooth)
        entitle(ax, f"{text}  ≤ {pane.max():.2g}", font, size=9)
    # Of its own: the bar of a glow would be as transparent as the glow.
    opaque = ScalarMappable(Normalize(0, 1), GLOW)
    colour_bar(figure, opaque, shown_panels, False, label="of the query's largest weight")
    entitle(figure, title, font, size=12)
    return figure


def _read_image(name: str, image: Any) -> Array:
    picture = read_array(name, "image", image)
    is_grey = picture.ndim == 2
    if not is_grey and not (picture.ndim == 3 and picture.shape[2] in (3, 4)):
        raise ValueError(
            f"{name}: image must be (height, width), optionally with 3 or 4 colours last, "
            f"found shape {picture.shape}"
        )
    if not picture.size:
        raise ValueError(f"{name}: image must not be empty, found shape {picture.shape}")
    if picture.dtype == np.uint8:
        return picture / 255.0
    picture = picture.astype(np.float64)
    if is_grey:
        low, high = picture.min(), picture.max()
        return np.asarray((picture - low) / ((high - low) or 1.0))
    if picture.min() < 0 or picture.max() > 1:
        raise ValueError(f"{name}: image's colours must be in [0, 1], or of uint8")
    return picture


def _panes(
    name: str, p: Array, size: tuple[int, ...], grid: Any, boxes: Any, first: int
) -> list[Array]:
    """For each query its weights as a small picture: a cell for each patch, or each pixel's box."""
    count = p.shape[1] - first
    if boxes is not None:
        return _region_panes(name, p[:, first:], size, boxes)
    if grid is None:
        side = round(count**0.5) if count > 0 else 0
        if side * side != count:
            raise ValueError(f"{name}: grid must be given where keys are no square, found {count}")
        grid = (side, side)
    down, across = grid
    if not 0 < down * across <= count or first < 0:
        raise ValueError(
            f"{name}: grid must have at most the {count} keys from the first patch on, "
            f"found {down} x {across}"
        )
    return [row[first : first + down * across].reshape(down, across) for row in p]


def _region_panes(name: str, p: Array, size: tuple[int, ...], boxes: Any) -> list[Array]:
    corners = read_array(name, "boxes", boxes)
    if corners.shape != (p.shape[1], 4):
        raise ValueError(f"{name}: boxes must be ({p.shape[1]}, 4), found shape {corners.shape}")
    panes = np.zeros((len(p), *size[:2]))
    limit = (size[1], size[0], size[1], size[0])
    for key, box in enumerate(np.clip(np.round(corners), 0, limit).astype(int)):
        left, top, right, bottom = box
        part = panes[:, top:bottom, left:right]
        np.maximum(part, p[:, key, None, None], out=part)
    return list(panes)


def _show_picture(ax: Any, picture: Array, *, is_dimmed: bool) -> None:
    if is_dimmed:  # grey and pale, so that every colour left on it is the weights'
        grey = picture if picture.ndim == 2 else picture[..., :3].mean(axis=-1)
        ax.imshow(grey, cmap="gray", vmin=0, vmax=1)
    else:
        ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
    ax.set_xticks([])
    ax.set_yticks([])
    tidy(ax)


def _show_glow(ax: Any, picture: Array, pane: Array, boxes: Any, is_smooth: bool) -> None:
    """The weights over the dimmed picture; what has none of them stays as it is, only darker."""
    _show_picture(ax, picture, is_dimmed=True)
    strength = pane / (pane.max() or 1.0)
    height, width = picture.shape[:2]
    ax.imshow(
        strength, cmap=GLOW, norm=Normalize(0, 1), alpha=0.25 + 0.6 * np.sqrt(strength),
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="bicubic" if is_smooth and boxes is None else "nearest",
    )  # fmt: skip
    for left, top, right, bottom in [] if boxes is None else np.asarray(boxes):
        place = (left - 0.5, top - 0.5)
        ax.add_patch(
            Rectangle(place, right - left, bottom - top, fill=False, color="white", lw=0.7)
        )
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)
