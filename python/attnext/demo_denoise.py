"""How does attention denoise a picture, and how does it learn how wide to look?

Non-local means (Buades, Coll, Morel 2005) replaces each pixel by the mean of all pixels, weighted
by how alike the patches around them are: exp(-distance² / bandwidth²). That is attention whose
score is -scale·‖q - k‖² with scale = 1 / bandwidth²: patches are queries and keys, pixels values.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import attnext

Array = Any  # of NumPy, float32

# A square of the photograph with many things that repeat: stars, stripes, braid, glasses.
CROP = (0, 0, 420, 420)
# The patch fades out over about one pixel: two patches should be alike in the middle first.
PATCH_WINDOW = 1.0
# The first step of the descent, before two slopes are known; in e-folds of bandwidth for each dB.
FIRST_RATE = 0.05
LONGEST_STEP = 0.5
FLAT_SLOPE = 0.01


class Step(NamedTuple):
    """One step of the descent: the bandwidth tried, what it gave, and which way is up."""

    bandwidth: float
    psnr: float
    slope: float  # dB for each e-fold of bandwidth
    seconds: float
    picture: Array


def photograph(size: int) -> Array:
    """The photograph that matplotlib ships, cropped and resized to (size, size, 3), in [0, 1]."""
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    file: Any = get_sample_data("grace_hopper.jpg")
    with file, Image.open(file) as picture:
        square = picture.convert("RGB").crop(CROP).resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(square, np.float32) / 255


def add_noise(clean: Array, noise: float, seed: int) -> Array:
    """The picture with Gaussian noise of standard deviation ``noise`` on every colour."""
    return clean + np.float32(noise) * np.random.default_rng(seed).standard_normal(
        clean.shape, np.float32
    )


def patches(picture: Array, side: int) -> Array:
    """One row for each pixel: the side x side patch around it, weighted to fade from its centre."""
    margin = side // 2
    # Distances do not change with the origin, but rounding does: 0.5 is the middle of [0, 1].
    padded = np.pad(picture - np.float32(0.5), ((margin,) * 2, (margin,) * 2, (0, 0)), "reflect")
    views = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
    offset = np.arange(side) - margin
    window = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * PATCH_WINDOW**2))
    weighted = views * np.sqrt(window / window.sum()).astype(np.float32)
    return weighted.reshape(1, picture.shape[0] * picture.shape[1], -1)


def pixels(picture: Array) -> Array:
    """The values of attention: one row of colours for each pixel, one head."""
    return np.ascontiguousarray(picture.reshape(1, -1, 3))


def scale_of(bandwidth: float) -> Array:
    """The scale of the score, as the array of one head that has a gradient."""
    return np.array([bandwidth**-2], np.float32)


def psnr(picture: Array, clean: Array) -> float:
    """Peak signal-to-noise ratio in dB, for pictures in [0, 1]."""
    return -10 * math.log10(np.mean((picture - clean) ** 2, dtype=np.float64))


def denoise_and_slope(features: Array, noisy: Array, clean: Array, bandwidth: float) -> Step:
    """The denoised picture, its PSNR, and the slope of the PSNR over log(bandwidth)."""
    begin = time.perf_counter()
    scale = scale_of(bandwidth)
    out, vjp = attnext.attention_vjp(
        features, features, pixels(noisy), score="neg_sq_l2", scale=scale
    )
    error = out - pixels(clean)
    # PSNR = -10 log10(mean(error²)), so dPSNR / dout = -20 / ln 10 · error / sum(error²).
    dout = (-20 / math.log(10) / np.sum(error**2, dtype=np.float64) * error).astype(np.float32)
    dscale = float(vjp(dout).dscale[0])
    slope = dscale * -2 * float(scale[0])  # scale = exp(-2 log(bandwidth))
    picture = out.reshape(noisy.shape)
    seconds = time.perf_counter() - begin
    return Step(bandwidth, psnr(picture, clean), slope, seconds, picture)


def learn_bandwidth(
    features: Array, noisy: Array, clean: Array, start: float, steps: int
) -> Iterator[Step]:
    """Gradient ascent of the PSNR on log(bandwidth), one Step at a time.

    The rate is Barzilai and Borwein's: the last two slopes tell how strongly the slope changes, and
    the step goes where it would be zero. It ends early where the slope is flat.
    """
    rate, bandwidth = FIRST_RATE, start
    last: Step | None = None
    for _ in range(steps):
        step = denoise_and_slope(features, noisy, clean, bandwidth)
        yield step
        if abs(step.slope) < FLAT_SLOPE:
            return
        if last is not None and step.slope != last.slope:
            moved = math.log(step.bandwidth / last.bandwidth)
            rate = abs(moved / (step.slope - last.slope))
        move = max(-LONGEST_STEP, min(LONGEST_STEP, rate * step.slope))
        bandwidth, last = bandwidth * math.exp(move), step


def differences(
    features: Array, noisy: Array, step: Step, rows: Array, random: np.random.Generator
) -> tuple[float, float]:
    """How far some rows are from the definition in plain float64 NumPy.

    The first is the largest difference of a colour of the picture; the second compares dscale for a
    random dout of those rows, relative.
    """
    queries, values = features[:, rows], pixels(noisy)
    dout = random.standard_normal((1, len(rows), 3), np.float32)
    options: dict[str, Any] = {"score": "neg_sq_l2", "scale": scale_of(step.bandwidth)}
    truth, true_vjp = attnext.reference.attention_vjp(queries, features, values, **options)
    _, vjp = attnext.attention_vjp(queries, features, values, **options)
    colour = np.abs(pixels(step.picture)[:, rows] - truth).max()
    true_slope = true_vjp(dout).dscale[0]
    return float(colour), float(abs(vjp(dout).dscale[0] / true_slope - 1))


def weights_of_pixel(features: Array, bandwidth: float, pixel: int, size: int) -> Array:
    """How much each pixel of the picture counts for one of them: (size, size), sum 1."""
    weights = attnext.attention_weights(
        features, features, rows=[pixel], score="neg_sq_l2", scale=scale_of(bandwidth)
    )
    return np.asarray(weights).reshape(size, size)


def breadth(features: Array, bandwidth: float, size: int) -> Array:
    """How many pixels each one averages: the exponential of the entropy of its weights."""
    stats = attnext.attention_stats(
        features, features, score="neg_sq_l2", scale=scale_of(bandwidth)
    )
    return np.exp(np.asarray(stats.entropy)).reshape(size, size)
