"""What is differentiated, and how? Attention as one operator with its own gradient."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from . import targets
from .problem import Static

#: Inputs beside q, k and v that have a gradient.
DIFFERENTIABLE = ("bias", "alibi_slopes", "sinks", "scale", "weight", "score_bias")

Arrays = dict[str, Any]


def attend(static: Static, arrays: Arrays) -> tuple[Any, Any]:
    """(out, lse), both differentiable, of arrays with four axes."""
    if any(isinstance(x, jax.core.Tracer) for x in arrays.values()):
        return _attend(static, arrays)  # type: ignore[no-any-return]
    # Outside of any transform JAX would trace the operator anew for each call.
    return _attend_compiled(static, arrays)  # type: ignore[no-any-return]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(static: Static, arrays: Arrays) -> tuple[Any, Any]:
    return _forward(static, arrays, arrays["q"].dtype)


_attend_compiled = jax.jit(_attend, static_argnums=0)


def _forward(static: Static, arrays: Arrays, dtype: Any) -> tuple[Any, Any]:
    q, v = arrays["q"], arrays["v"]
    results = {
        "out": ((*q.shape[:-1], v.shape[-1]), dtype),
        "lse": (rows_shape(static, q), accumulator(q.dtype)),
    }
    made = targets.call("forward", static.attributes(), arrays, results)
    return made["out"], made["lse"]


def _attend_forward(static: Static, primals: Arrays) -> tuple[tuple[Any, Any], Any]:
    """Keeps what backward needs; a 16-bit out unrounded, for more exact gradients."""
    arrays = {name: primal.value for name, primal in primals.items()}
    # Names are no arrays: only as keys may they be kept.
    wanted = {
        f"d{name}": None for name in DIFFERENTIABLE if name in primals and primals[name].perturbed
    }
    out, lse = _forward(static, arrays, accumulator(arrays["q"].dtype))
    return (out.astype(arrays["q"].dtype), lse), (arrays, wanted, out, lse)


def _attend_backward(static: Static, kept: Any, cotangents: Any) -> tuple[Arrays]:
    arrays, wanted, out, lse = kept
    dout, dlse = cotangents
    q, v = arrays["q"], arrays["v"]
    if isinstance(dout, SymbolicZero):
        dout = jnp.zeros((*q.shape[:-1], v.shape[-1]), q.dtype)
    inputs = {**arrays, "dout": dout, "out": out, "lse": lse}
    if not isinstance(dlse, SymbolicZero):
        inputs["dlse"] = dlse
    names = ("dq", "dk", "dv", *wanted)
    results = {name: (arrays[name[1:]].shape, arrays[name[1:]].dtype) for name in names}
    made = targets.call("backward", static.attributes(), inputs, results)
    return ({name: made.get(f"d{name}") for name in arrays},)


_attend.defvjp(_attend_forward, _attend_backward, symbolic_zeros=True)


def accumulator(dtype: Any) -> Any:
    """What the kernels add up in, and the dtype of lse."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def rows_shape(static: Static, x: Any) -> tuple[int, int, int]:
    """(batch, heads, length) of q or k."""
    if static.layout == "bhsd":
        return x.shape[0], x.shape[1], x.shape[2]
    return x.shape[0], x.shape[2], x.shape[1]
