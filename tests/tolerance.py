"""When is a result right? Not by a chosen number: the naive formula in the same precision earns the tolerance."""

import numpy as np
from cases import DTYPES

# The formula is evaluated in more digits than the inputs have: this is the truth.
WIDER = {"float64": np.longdouble, "float32": np.float64, "float16": np.float64, "bfloat16": np.float64}

# Relative to the largest value of a tensor, for well-conditioned inputs: what the interface promises.
CONTRACT = {"float64": 1e-10, "float32": 2e-5, "float16": 6e-3, "bfloat16": 4e-2}

# One rounding of a result of this type, relative to its largest value.
ROUNDING = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}

# A gradient that is 0 in exact arithmetic, as that of q with a single key, is a difference of numbers of size one.
_CANCELLED = 1e-2


def error(x, truth):
    """The largest difference; infinite unless both are infinite, or NaN, at the same places."""
    x, truth = np.asarray(x).astype(np.longdouble), np.asarray(truth)
    is_finite = np.isfinite(truth)
    if not np.array_equal(
        np.where(is_finite, 0, truth), np.where(np.isfinite(x), 0, x), equal_nan=True
    ):
        return np.inf
    return float(np.abs(x[is_finite] - truth[is_finite]).max(initial=0))


def largest(x):
    x = np.asarray(x)
    return float(np.abs(x[np.isfinite(x)]).max(initial=0))


def check(name, actual, truth, naive, dtype, lse):
    """Accepts ``actual`` if it is about as good as the naive formula, and as good as promised.

    Weights are e^(score - lse): one rounding of a score near ``lse`` is |lse| roundings of a weight.
    """
    assert actual.shape == truth.shape, f"{name} has shape {actual.shape}, not {truth.shape}"
    result_dtype = next(key for key, value in DTYPES.items() if value == np.asarray(actual).dtype)
    found, scale = error(actual, truth), max(largest(truth), _CANCELLED)
    weight_rounding = ROUNDING["float64" if dtype == "float64" else "float32"] * largest(lse)
    allowed = 2 * error(naive, truth) + (ROUNDING[result_dtype] + weight_rounding) * scale
    assert found <= allowed, (
        f"{name}: error {found:.3g}, twice the naive formula's is {allowed:.3g}"
    )
    promised = max(CONTRACT[dtype], CONTRACT[result_dtype]) * scale
    assert found <= promised, f"{name}: error {found:.3g}, promised {promised:.3g}"
