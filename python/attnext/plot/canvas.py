"""Where is it drawn, and in which ink? On figures that no registry holds, or on the caller's."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, FigureBase

INK, FAINT, ACCENT, LINE = "#1b1f24", "#6b7280", "#d9480f", "#c9ced6"

#: Light for nothing, dark for much: what is not attended to looks like paper.
COLOURS = LinearSegmentedColormap.from_list(
    "attnext", ["#ffffff", "#d3ecec", "#82cbc4", "#2f9fc0", "#2360a5", "#0b1f52"]
)

MAX_INCHES = 16.0


def new_figure(width: float, height: float) -> Any:
    """A figure of these inches that only its holder knows: pyplot neither keeps nor shows it."""
    return Figure(
        figsize=(min(width, MAX_INCHES), min(height, MAX_INCHES)),
        dpi=120,
        layout="constrained",
        facecolor="white",
    )


def axes_of(function: str, ax: Any, width: float, height: float) -> Any:
    """The caller's axes, or new ones alone on a figure."""
    if ax is None:
        return new_figure(width, height).subplots()
    if not isinstance(ax, Axes):
        raise TypeError(f"{function}: ax must be matplotlib Axes, found {type(ax).__name__}")
    return ax


def figure_of(function: str, figure: Any, width: float, height: float) -> Any:
    """The caller's figure or part of one, or a new figure."""
    if figure is None:
        return new_figure(width, height)
    if not isinstance(figure, FigureBase):
        raise TypeError(
            f"{function}: figure must be a matplotlib Figure or SubFigure, "
            f"found {type(figure).__name__}"
        )
    return figure


def tidy(ax: Any) -> None:
    """Axes that stay behind the data."""
    ax.tick_params(length=0, colors=FAINT, labelcolor=INK, labelsize=9)
    ax.xaxis.label.set_color(FAINT)
    ax.yaxis.label.set_color(FAINT)
    for spine in ax.spines.values():
        spine.set_color(LINE)


def entitle(ax: Any, title: str | None, font: Any = None, *, size: float = 11) -> None:
    """A title flush left, where the eye begins: above axes, or above a whole figure."""
    if not title:
        return
    if isinstance(ax, Axes):
        text = ax.set_title(title, loc="left")
    else:
        text = ax.suptitle(title, x=0.01, ha="left")
    text.set_parse_math(False)
    if font is not None:
        text.set_fontproperties(font)
    text.set(fontsize=size, weight="bold", color=INK)


def inches(ax: Any) -> tuple[float, float]:
    """How large axes are on paper, as far as is known before the layout is settled."""
    box = ax.get_window_extent()
    return box.width / ax.figure.dpi, box.height / ax.figure.dpi
