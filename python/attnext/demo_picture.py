"""What does the demo's picture show? Four pictures, how wide each pixel looks, and the descent."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np

if TYPE_CHECKING:
    from .demo import Result
    from .demo_denoise import Array, Step

INK, FAINT, ACCENT = "#1b1f24", "#6b7280", "#d9480f"
STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": "#c9ced6",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
}


def draw(path: Path, result: Result) -> None:
    """Write the picture of a demo to ``path``."""
    matplotlib.use("Agg")  # for machines without a screen
    plt: Any = importlib.import_module("matplotlib.pyplot")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 3, figsize=(12, 8.6), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
        count = result.clean.shape[0] * result.clean.shape[1]
        figure.suptitle(
            f"Exact non-local means is attention: {count:,} × {count:,} scores, never stored",
            x=0.01, ha="left", fontsize=15, weight="bold",
        )  # fmt: skip
        best = result.best
        _show(axes[0, 0], result.noisy, "noisy", f"{result.noisy_psnr:.2f} dB")
        _show(axes[0, 1], best.picture, "denoised", f"{best.psnr:.2f} dB")
        _show(axes[0, 2], result.clean, "clean", "the photograph")
        _show_weights(axes[1, 0], result)
        _show_breadth(axes[1, 1], result)
        _show_descent(axes[1, 2], result.steps, result.steps[0], best)
        figure.savefig(path, dpi=110, facecolor="white")
        plt.close(figure)


def _show(axes: Any, picture: Array, title: str, note: str) -> None:
    axes.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    _label(axes, title, note)


def _label(axes: Any, title: str, note: str) -> None:
    axes.set_title(title, weight="bold")
    axes.set_xlabel(note, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])


def _show_weights(axes: Any, result: Result) -> None:
    """The weights of one pixel, over a dim picture, so that one sees what was found alike."""
    axes.imshow(np.clip(result.noisy, 0, 1).mean(axis=-1), cmap="gray", vmin=0, vmax=1.6)
    weights = result.weights
    # Its own patch is the only one that is not merely alike: what it gives the others is the news.
    largest = np.delete(weights, result.pixel).max()
    # A thousandth of the largest weight and below stays dark: the eye reads decades, not fractions.
    strength = np.clip(1 + np.log10(np.maximum(weights / largest, 1e-9)) / 3, 0, 1)
    opacity = np.sqrt(strength)
    axes.imshow(strength, cmap="plasma", alpha=opacity, vmin=0, vmax=1, interpolation="nearest")
    row, column = divmod(result.pixel, weights.shape[1])
    for width, colour in ((3.0, "white"), (1.6, INK)):
        axes.plot(column, row, "o", ms=15, mfc="none", mec=colour, mew=width)
    _label(axes, "what one pixel attends to", "the ringed one; logarithmic, three decades")


def _show_breadth(axes: Any, result: Result) -> None:
    image = axes.imshow(np.log10(result.breadth), cmap="viridis", interpolation="nearest")
    strip = axes.inset_axes((0, -0.055, 1, 0.03))
    bar = axes.figure.colorbar(image, cax=strip, orientation="horizontal")
    bar.outline.set_visible(False)
    decades = np.arange(int(np.log10(result.breadth.max())) + 1)
    bar.set_ticks(decades, labels=[f"{10**decade:,}" for decade in decades])
    bar.ax.tick_params(length=0)
    _label(axes, "how many pixels each one averages", "")


def _show_descent(axes: Any, steps: list[Step], first: Step, best: Step) -> None:
    order = sorted(steps, key=lambda step: step.bandwidth)
    axes.plot([s.bandwidth for s in order], [s.psnr for s in order], color="#c9ced6", zorder=1)
    axes.scatter([s.bandwidth for s in steps], [s.psnr for s in steps], color=ACCENT, zorder=2)
    axes.set_box_aspect(1)
    axes.set_xlabel(f"bandwidth; {len(steps)} steps", loc="left")
    axes.margins(0.12, 0.15)
    axes.annotate(
        f"start, {first.psnr:.2f} dB", (first.bandwidth, first.psnr),
        xytext=(10, -4), textcoords="offset points",
    )  # fmt: skip
    axes.annotate(
        f"learned, {best.psnr:.2f} dB", (best.bandwidth, best.psnr),
        xytext=(6, 10), textcoords="offset points", ha="right",
    )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_title("learning the bandwidth: PSNR in dB", weight="bold")
