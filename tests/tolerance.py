"""When is a result right? Not by a chosen number: the naive formula in its precision earns it."""

import numpy as np

from inputs import DTYPES

# The formula is evaluated in more digits than the inputs have: this is the truth.
WIDER = dict.fromkeys(DTYPES, np.float64) | {"float64": np.longdouble}

# Relative to the largest value of a tensor: what the interface promises.
CONTRACT = {"float64": 1e-10, "float32": 2e-5, "float16": 6e-3, "bfloat16": 4e-2}

# One rounding, relative to the number rounded.
ROUNDING = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}

# What the terms of each of these sums are multiples of.
FACTORS = {"out": "v", "dq": "k", "dk": "q", "dv": "dout"}


def error(x, truth):
    """The largest difference; infinite unless both are infinite, or NaN, at the same places."""
    x, truth = np.asarray(x).astype(np.longdouble), np.asarray(truth)
    is_finite = np.isfinite(truth)
    beyond = np.where(is_finite, 0, truth), np.where(np.isfinite(x), 0, x)
    if not np.array_equal(*beyond, equal_nan=True):
        return np.inf
    return float(np.abs(x[is_finite] - truth[is_finite]).max(initial=0))


def largest(x):
    """The largest finite magnitude."""
    x = np.asarray(x).astype(np.float64)
    return float(np.abs(x[np.isfinite(x)]).max(initial=0))


def size_of_terms(name, inputs, lse):
    """How large a sum is if nothing cancels: where it does, the errors of its terms do not."""
    if name == "lse":
        return 1
    size_of_ds = max(1, 0.3 * largest(inputs.dout) * largest(inputs.v))
    if name not in FACTORS:
        distance = sum(inputs.q.shape + inputs.k.shape) if name == "dalibi_slopes" else 1
        return size_of_ds * distance * np.size(lse) ** 0.5
    factor, score = largest(getattr(inputs, FACTORS[name])), inputs.options.get("score")
    if name in ("dq", "dk"):
        if score == "cosine":
            norms = np.linalg.norm(np.asarray(getattr(inputs, name[1]), np.float64), axis=-1)
            factor = largest(1 / norms[norms > 0])
        elif score == "neg_sq_l2":
            factor = 2 * (largest(inputs.q) + largest(inputs.k))
        factor *= size_of_ds
    return max(0.5, 0.1 * factor)


def check(name, actual, truth, naive, inputs, lse):
    """Accept ``actual`` if it is about as good as the naive formula, and as good as promised.

    Twice the naive formula's error, and what luck may have spared it: the rounding of the result,
    or of the terms of a sum over all rows; in the weights e^(score - lse) those of score and lse,
    each |lse| roundings of a weight; and about sqrt(n) / 2 roundings for a sum of n terms. A 16-bit
    matrix unit takes weights and their gradients rounded to its inputs' type.
    """
    dtype, result_dtype = (np.asarray(x).dtype.name for x in (inputs.q, actual))
    assert actual.shape == truth.shape, f"{name} has shape {actual.shape}, not {truth.shape}"
    size = largest(truth)
    scale = max(size, size_of_terms(name, inputs, lse))
    rounding = ROUNDING[result_dtype] * size
    if name not in (*FACTORS, "lse"):
        rounding = max(ROUNDING[dtype], ROUNDING[result_dtype]) * scale
    accumulated = ROUNDING["float64" if dtype == "float64" else "float32"]
    longest_sum = max(*inputs.q.shape, *inputs.k.shape)
    of_terms = accumulated * (2 + 2 * largest(lse) + longest_sum**0.5 / 2)
    if dtype in ("float16", "bfloat16") and name != "lse":
        of_terms += ROUNDING[dtype] / 4
    allowed = 2 * error(naive, truth) + rounding + of_terms * scale
    promised = max(CONTRACT[dtype], CONTRACT[result_dtype]) * scale
    found = error(actual, truth)
    assert found <= allowed, f"{name}: error {found:.3g}, earned {allowed:.3g}"
    assert found <= promised, f"{name}: error {found:.3g}, promised {promised:.3g}"
