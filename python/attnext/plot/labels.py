"""How are tokens written along an axis, however many and in whatever script?"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arguments import items
from .canvas import inches
from .fonts import font_for
from .weights import Array

#: What one line of text takes on paper, in inches, at 9 points.
LINE = 0.17
LONGEST = 24

#: Blanks that would leave a gap where there is a token.
VISIBLE = {"": "∅", " ": "␣", "\n": "↵", "\t": "⇥"}


def read_labels(
    function: str, name: str, labels: Any, numbers: Array, count: int
) -> list[str] | None:
    """The texts for `numbers`, given one for each of `count`, or one for each of `numbers`."""
    if labels is None:
        return None
    texts = [written(label) for label in items(function, name, labels)]
    if len(texts) == count:
        return [texts[number] for number in numbers]
    if len(texts) == len(numbers):
        return texts
    chosen = "" if len(numbers) == count else f", or {len(numbers)} for those shown"
    raise ValueError(f"{function}: {name} must have {count} entries{chosen}, found {len(texts)}")


def written(label: Any) -> str:
    """A token as it can be read: blanks visible, the long cut, no line breaks."""
    text = str(label)
    text = VISIBLE.get(text, text.replace("\n", VISIBLE["\n"]).replace("\t", VISIBLE["\t"]))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def width_of(texts: Sequence[str] | None) -> float:
    """About how wide the widest of these is on paper, in inches; East Asian letters count twice."""
    return max((_columns(text) for text in texts or ()), default=0) * 0.075


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def label_axis(
    ax: Any,
    side: str,
    labels: list[str] | None,
    numbers: Array,
    font: Any,
    *,
    is_above: bool = False,
    size: float = 9,
) -> None:
    """Ticks along `side` ("x" or "y") of cells: texts, or numbers where there are none.

    As many as there is room for: all, or every second, every third ...
    """
    axis = ax.xaxis if side == "x" else ax.yaxis
    room = inches(ax)[0 if side == "x" else 1]
    texts = labels if labels is not None else [f"{number:,}" for number in numbers]
    is_turned = side == "x" and width_of(texts) > 0.9 * room / max(len(texts), 1)
    if labels is None:
        places = _round_places(numbers, room)
        is_turned = False
    else:
        places = np.arange(0, len(texts), max(1, int(np.ceil(len(texts) * LINE / max(room, LINE)))))
    axis.set_ticks(places, labels=[texts[place] for place in places])
    for text in axis.get_ticklabels():
        text.set_parse_math(False)
        text.set_fontproperties(font)
        text.set_fontsize(size)
        if is_turned:
            text.set(
                rotation=45,
                rotation_mode="anchor",
                ha="left" if is_above else "right",
                va="center",
            )
    axis.set_tick_params(length=0)


def _round_places(numbers: Array, room: float) -> Array:
    """Places of few, evenly spaced numbers; all where they fit."""
    most = max(2, int(room / 0.65))
    if len(numbers) <= most:
        return np.arange(len(numbers))
    step = len(numbers) / most
    for wide in (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100, 128, 200, 250, 256, 500, 512):
        if wide >= step:
            return np.arange(0, len(numbers), wide)
    return np.linspace(0, len(numbers) - 1, most).round().astype(np.int64)


def common_font(function: str, font: Any, *texts: Any) -> Any:
    """One font for all that is written on a picture."""
    return font_for(function, [text for group in texts for text in group or ()], font)
