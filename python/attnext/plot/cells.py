"""How is a matrix of weights drawn? As cells from light to dark, with a bar that says how much."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize

from .canvas import COLOURS, INK, LINE
from .weights import Array

#: More cells than these no screen shows; their largest stand for them.
MOST_CELLS = 1024

#: Cells up to here are large enough for a white gap between them, and for numbers in them.
FEW_CELLS = 40


class Scale(NamedTuple):
    """From weight to colour; `is_cut` where a few weights are beyond the darkest."""

    norm: Any
    colours: Any
    is_cut: bool


def colour_scale(p: Array, vmax: float | None, norm: Any, colours: Any) -> Scale:
    """0 to the largest, unless a few towers, as a first token's, would leave all else pale."""
    chosen = colormaps[colours] if isinstance(colours, str) else colours or COLOURS
    if norm is not None:
        return Scale(norm, chosen, False)
    largest = float(np.nanmax(p, initial=0))
    if vmax is None:
        positive = p[p > 0]
        usual = float(np.quantile(positive, 0.995)) if positive.size > 400 else largest
        vmax = usual if usual < 0.7 * largest else largest
    return Scale(Normalize(0, vmax or 1.0), chosen, vmax < largest)


def pooled(p: Array, most: int = MOST_CELLS) -> tuple[Array, int, int]:
    """The largest of each block of cells, so that no thin line is lost, and the block's sides."""
    sides = [-(-count // most) for count in p.shape]
    for axis, side in enumerate(sides):
        starts = np.arange(0, p.shape[axis], side)
        p = np.maximum.reduceat(p, starts, axis=axis) if side > 1 else p
    return p, sides[0], sides[1]


def draw_cells(ax: Any, p: Array, scale: Scale, *, aspect: str, annotate: bool = False) -> Any:
    """The matrix, first row on top; returns the image."""
    image = ax.imshow(
        p, cmap=scale.colours, norm=scale.norm, aspect=aspect, interpolation="nearest"
    )
    ax.spines[:].set_color(LINE)
    if max(p.shape) <= FEW_CELLS:
        ax.set_xticks(np.arange(p.shape[1] - 1) + 0.5, minor=True)
        ax.set_yticks(np.arange(p.shape[0] - 1) + 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=0.6)
        ax.tick_params(which="minor", length=0)
    if annotate:
        write_numbers(ax, p, scale)
    return image


def write_numbers(ax: Any, p: Array, scale: Scale) -> None:
    """Each weight in hundredths, in whichever of ink and white stands out; none below one."""
    for (row, column), weight in np.ndenumerate(p):
        if weight >= 0.005:
            red, green, blue, _ = scale.colours(scale.norm(weight))
            is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
            ax.text(
                column, row, f"{100 * weight:.0f}", ha="center", va="center", fontsize=7,
                color="white" if is_dark else INK,
            )  # fmt: skip


def colour_bar(figure: Any, image: Any, axes: Any, is_cut: bool, label: str = "weight") -> None:
    """What a colour means."""
    bar = figure.colorbar(
        image, ax=axes, extend="max" if is_cut else "neither", shrink=0.9, aspect=28, pad=0.02
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8)
    bar.set_label(label, fontsize=9, color=INK)
