"""What does ``python -m attnext demo`` do? Denoise a photograph, learn how, check the result."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import demo_denoise as nlm
from .demo_denoise import Array, Step
from .demo_measure import Cost, measure

# Of colours in [0, 1], the package's promise for float32; of the slope, relative: a sum of both
# signs, where errors of its terms weigh more.
LARGEST_DIFFERENCE = 2e-5
LARGEST_SLOPE_DIFFERENCE = 1e-3
ROWS_CHECKED = 64
# Plain NumPy is measured at 64 x 64 pixels: 4,096 x 4,096 scores are 64 MiB an array.
NUMPY_SIZE = 64
# A point of the white collar, as fractions of height and width: cap and stars are as white.
CHOSEN_PIXEL = (0.922, 0.492)
GIBIBYTE, MEBIBYTE = 1024**3, 1024**2


class Result(NamedTuple):
    """All that the picture shows."""

    clean: Array
    noisy: Array
    noisy_psnr: float
    steps: list[Step]
    best: Step
    pixel: int
    weights: Array
    breadth: Array


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m attnext demo",
        description="Denoise a photograph by exact non-local means, which is attention.",
    )
    parser.add_argument("--size", type=int, default=128, help="pixels on a side (default 128)")
    parser.add_argument("--patch", type=int, default=5, help="pixels on a patch's side, odd (5)")
    parser.add_argument("--noise", type=float, default=0.1, help="standard deviation (0.1)")
    parser.add_argument("--steps", type=int, default=12, help="at most so many steps (12)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise and the checked rows (0)")
    parser.add_argument("--output", type=Path, default=Path("attnext_demo.png"), help="the picture")
    options = parser.parse_args(argv)
    if options.size < 16:
        parser.error(f"--size must be at least 16, found {options.size}")
    if options.patch < 1 or options.patch % 2 == 0 or options.patch >= options.size:
        parser.error(f"--patch must be odd, positive and below --size, found {options.patch}")
    if not options.noise > 0:
        parser.error(f"--noise must be positive, found {options.noise}")
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, found {options.steps}")
    if not options.output.parent.is_dir():
        parser.error(f"--output: there is no directory {options.output.parent}")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the demo; the exit status is 0 if the rows checked are right, 1 if not."""
    options = parse(argv)
    try:
        from . import demo_picture
    except ImportError as error:
        print(f'The demo needs matplotlib ({error}): pip install "attnext[demo]"', file=sys.stderr)
        return 2
    begin = time.perf_counter()
    result, is_right = run(options)
    demo_picture.draw(options.output, result)
    _line("picture", f"{options.output}")
    _line("all in all", f"{time.perf_counter() - begin:.1f} s")
    if not is_right:
        print("\nThe rows checked are NOT right.", file=sys.stderr)
    return 0 if is_right else 1


def run(options: argparse.Namespace) -> tuple[Result, bool]:
    """Denoise, learn, check and measure, telling it line by line."""
    size, count = options.size, options.size**2
    clean = nlm.photograph(size)
    noisy = nlm.add_noise(clean, options.noise, options.seed)
    features = nlm.patches(noisy, options.patch)
    _line("photograph", f"{size} × {size} pixels, noise {options.noise:g}")
    _line("attention", f"{count:,} queries × {count:,} keys, head_dim {features.shape[2]}, float32")
    _line("score", f"-‖q - k‖² / bandwidth²; patches {options.patch} × {options.patch} × 3")
    print()
    descent = nlm.learn_bandwidth(features, noisy, clean, options.noise, options.steps)
    steps = _learn(descent, options.steps)
    best = max(steps, key=lambda step: step.psnr)
    noisy_psnr = nlm.psnr(noisy, clean)
    _tell_quality(noisy_psnr, steps[0], best)
    is_right = _check_rows(features, noisy, best, options.seed)
    _tell_cost(options)
    pixel = _chosen_pixel(size)
    weights = nlm.weights_of_pixel(features, best.bandwidth, pixel, size)
    breadth = nlm.breadth(features, best.bandwidth, size)
    return Result(clean, noisy, noisy_psnr, steps, best, pixel, weights, breadth), is_right


def _line(name: str, text: str) -> None:
    print(f"  {name:<12}{text}", flush=True)


def _learn(descent: Iterator[Step], at_most: int) -> list[Step]:
    """The steps of the descent, under a progress bar where rich is installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    except ImportError:
        return [_tell_step(number, step, print) for number, step in enumerate(descent, 1)]
    columns = (
        TextColumn("  learning"),
        BarColumn(28),
        MofNCompleteColumn(),
        TextColumn("steps at most"),
    )
    console = Console(highlight=False)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=at_most)
        steps = []
        for number, step in enumerate(descent, 1):
            steps.append(_tell_step(number, step, console.print))
            progress.advance(task)
    return steps


def _tell_step(number: int, step: Step, write: Callable[[str], None]) -> Step:
    write(
        f"  step {number:>2}     bandwidth {step.bandwidth:.4f}   PSNR {step.psnr:6.3f} dB"
        f"   slope {step.slope:+7.3f} dB   {step.seconds:5.2f} s"
    )
    return step


def _tell_quality(noisy_psnr: float, first: Step, best: Step) -> None:
    print()
    _line("PSNR", f"{noisy_psnr:.2f} dB noisy  →  {best.psnr:.2f} dB denoised")
    _line("learning", f"{first.psnr:.2f} dB at the first bandwidth, {first.bandwidth:.4f}  →  "
                      f"{best.psnr:.2f} dB at the learned, {best.bandwidth:.4f}")  # fmt: skip


def _check_rows(features: Array, noisy: Array, best: Step, seed: int) -> bool:
    """Whether some rows, and the slope they give, are as float64 NumPy has them."""
    random, count = np.random.default_rng(seed), features.shape[1]
    rows = random.choice(count, min(ROWS_CHECKED, count), replace=False)
    pixel, slope = nlm.differences(features, noisy, best, rows, random)
    is_right = pixel <= LARGEST_DIFFERENCE and slope <= LARGEST_SLOPE_DIFFERENCE
    verdict = "ok" if is_right else "WRONG"
    _line("check", f"{verdict}: {len(rows)} random rows against plain float64 NumPy")
    _line("", f"largest difference of a colour {pixel:.1e}, at most {LARGEST_DIFFERENCE:.0e}")
    _line("", f"relative of their slope        {slope:.1e}, at most {LARGEST_SLOPE_DIFFERENCE:.0e}")
    return is_right


def _tell_cost(options: argparse.Namespace) -> None:
    """Time and memory of one forward and backward, beside plain NumPy at a size it can hold."""
    own = measure("attnext", options.size, options.patch)
    small = min(NUMPY_SIZE, options.size)
    plain = measure("numpy", small, options.patch)
    growth = (options.size / small) ** 4
    print()
    _line("cost", "one forward and backward, memory beyond its inputs")
    _cost_line("attnext", options.size, own)
    if growth > 1:
        _cost_line("attnext", small, measure("attnext", small, options.patch))
    _cost_line("plain NumPy", small, plain)
    if growth > 1:
        peak = None if plain.peak_bytes is None else round(plain.peak_bytes * growth)
        grown = Cost(plain.seconds * growth, peak)
        _cost_line("plain NumPy", options.size, grown, f"   not measured: × {growth:,.1f}")
    print()


def _cost_line(name: str, size: int, cost: Cost, note: str = "") -> None:
    if cost.peak_bytes is None:
        memory = "not told here"
    elif cost.peak_bytes < GIBIBYTE:
        memory = f"{cost.peak_bytes / MEBIBYTE:,.0f} MiB"
    else:
        memory = f"{cost.peak_bytes / GIBIBYTE:,.1f} GiB"
    _line("", f"{name:<12} {size:>4} × {size:<4} {cost.seconds:8.2f} s {memory:>12}{note}")


def _chosen_pixel(size: int) -> int:
    row, column = (min(size - 1, int(fraction * size)) for fraction in CHOSEN_PIXEL)
    return row * size + column
