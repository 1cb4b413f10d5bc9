"""Does attnext.jax give attnext's results and gradients, for every case in every dtype?"""

import contextlib

import numpy as np
import pytest
from bits import same

import attnext
from cases import CASES

jax = pytest.importorskip("jax")
import attnext.jax as attnext_jax  # noqa: E402

EVERY = [
    pytest.param(case, dtype, id=f"{case}-{dtype}")
    for case in CASES
    for dtype in ("float32", "float64", "float16", "bfloat16")
    if dtype == "float32" or case.is_core
]
LEARNED = ("bias", "alibi_slopes", "sinks", "scale")


def with_doubles(dtype):
    """JAX has no float64 unless it is asked for."""
    return jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext()


def differentiable(x):
    """The arrays of a case that have a gradient, by the names of their gradients."""
    arrays = {"dq": x.q, "dk": x.k, "dv": x.v}
    for name in LEARNED:
        if isinstance(x.options.get(name), np.ndarray):
            arrays[f"d{name}"] = x.options[name]
    score = x.options.get("score")
    if isinstance(score, attnext.AdditiveScore):
        arrays["dweight"] = score.weight
        if score.bias is not None:
            arrays["dscore_bias"] = score.bias
    return arrays


def attend(arrays, options):
    """attnext.jax's attention as a function of all differentiable arrays."""
    options = options | {name: arrays[f"d{name}"] for name in LEARNED if f"d{name}" in arrays}
    if "dweight" in arrays:
        options["score"] = attnext.AdditiveScore(arrays["dweight"], arrays.get("dscore_bias"))
    q, k, v = (arrays[name] for name in ("dq", "dk", "dv"))
    return attnext_jax.attention(q, k, v, return_lse=True, **options)


@pytest.mark.parametrize(("case", "dtype"), EVERY)
def test_forward(case, dtype):
    x = case.inputs(dtype, attnext.AdditiveScore)
    expected = attnext.attention(x.q, x.k, x.v, return_lse=True, **x.options)
    with with_doubles(dtype):
        results = attnext_jax.attention(x.q, x.k, x.v, return_lse=True, **x.options)
    assert all(map(same, results, expected))


@pytest.mark.parametrize(
    ("case", "dtype"), [param for param in EVERY if not param.values[0].page_size]
)
def test_gradients_under_jit(case, dtype):
    x = case.inputs(dtype, attnext.AdditiveScore)
    _, expected_vjp = attnext.attention_vjp(x.q, x.k, x.v, return_lse=True, **x.options)
    expected = expected_vjp(x.dout, x.dlse)
    with with_doubles(dtype):
        arrays = jax.tree.map(jax.numpy.asarray, differentiable(x))
        _, vjp = jax.vjp(jax.jit(lambda arrays: attend(arrays, x.options)), arrays)
        (grads,) = vjp((jax.numpy.asarray(x.dout), jax.numpy.asarray(x.dlse)))
    for name, grad in grads.items():
        wanted = getattr(expected, name)
        if wanted.dtype != arrays[name].dtype:  # a float64 bias, which JAX took as float32
            wanted = wanted.astype(arrays[name].dtype)
        assert same(grad, wanted), name
