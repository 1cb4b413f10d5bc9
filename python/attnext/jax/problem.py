"""What of a call is known when it is traced, what are arrays, and do they make a problem?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attnext import _core
from attnext.attention import AdditiveScore
from attnext.errors import speaking_of
from attnext.options import DEFAULTS

from .targets import spread

SCORES = {"dot": 0, "cosine": 1, "neg_l2": 2, "neg_sq_l2": 3}
ADDITIVE = 4
CAUSALS = {False: 0, True: 1, "bottom_right": 1, "top_left": 2}

FLOAT_OPTIONS = ("bias", "alibi_slopes", "sinks")
LENGTHS = ("q_offset", "q_lengths", "kv_lengths", "cu_seqlens_q", "cu_seqlens_k", "block_table")


@dataclass(frozen=True)
class Static:
    """The options that a compiled program has built in, as the attributes of the targets."""

    layout: str  # "bhsd" or "bshd"
    score: int
    causal: int
    scale: float | None
    softcap: float
    window: tuple[int, int]
    dropout: float
    q_offset: int | None
    dropout_stream: int = 0

    def attributes(self) -> dict[str, Any]:
        """Each of the type that the targets read."""
        return {
            "layout": self.layout,
            "score": np.int32(self.score),
            "causal": np.int32(self.causal),
            "softcap": np.float64(self.softcap),
            "window_left": np.int64(self.window[0]),
            "window_right": np.int64(self.window[1]),
            "dropout": np.float64(self.dropout),
            "dropout_stream": np.int32(self.dropout_stream),
            **({} if self.scale is None else {"scale": np.float64(self.scale)}),
            **({} if self.q_offset is None else {"q_offset": np.int64(self.q_offset)}),
        }


@dataclass(frozen=True)
class Problem:
    """A call: what is static, the arrays by name with four axes, and the caller's rank."""

    static: Static
    arrays: dict[str, Any]
    rank: int

    def in_callers_axes(self, result: Any) -> Any:
        """A result without the axes in front that the caller's arrays lack."""
        return result.reshape(result.shape[4 - self.rank :])


def read_problem(
    function: str,
    arrays: dict[str, Any],
    options: dict[str, Any],
    *,
    dropout_stream: int = 0,
    names: Mapping[str, str] = MappingProxyType({}),
) -> Problem:
    """The problem of `arrays` (q, k and mostly v) and attention's options, all of them by name.

    `names` says what the caller's errors call an argument otherwise.
    """
    given = {name: as_array(function, names.get(name, name), x) for name, x in arrays.items()}
    values = {**options, **_option_arrays(function, options)}
    with speaking_of(function, names):
        _check(given, values)
    score, scale = values["score"], values["scale"]
    if isinstance(score, AdditiveScore):
        given["weight"] = score.weight
        if score.bias is not None:
            given["score_bias"] = score.bias
    if is_array(scale):
        given["scale"] = jnp.broadcast_to(scale, (_num_heads(given["q"], values["layout"]),))
        scale = None
    for name in ("mask", *FLOAT_OPTIONS, *LENGTHS):
        if is_array(values[name]):
            given[name] = values[name]
    if values["dropout"] > 0:
        given["seed"] = _seed_words(values["seed"])
    rank = given["q"].ndim
    static = _static(values, scale, rank, dropout_stream)
    return Problem(static, spread(_with_four_axes(given)), rank)


def is_array(value: Any) -> bool:
    """Whether `value` is an array of JAX or NumPy."""
    return isinstance(value, jax.Array | np.ndarray)


def as_array(function: str, name: str, value: Any) -> Any:
    """An array of JAX, from one of JAX or NumPy."""
    if not is_array(value):
        raise TypeError(
            f"{function}: {name} must be an array of JAX or NumPy, found {type(value).__name__}"
        )
    return jnp.asarray(value)


def _option_arrays(function: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that are arrays, or lists that stand for one."""
    arrays = {}
    for name in ("mask", *FLOAT_OPTIONS, *LENGTHS):
        value = options[name]
        if value is None or (name == "q_offset" and isinstance(value, int | np.integer)):
            continue
        # Traced, an array of NumPy would lose its values: they can be checked now.
        is_known = isinstance(value, list | tuple | np.ndarray)
        arrays[name] = np.asarray(value) if is_known else as_array(function, name, value)
    score = options["score"]
    if isinstance(score, AdditiveScore):
        weight = as_array(function, "AdditiveScore.weight", score.weight)
        bias = score.bias
        if bias is not None:
            bias = as_array(function, "AdditiveScore.bias", bias)
        arrays["score"] = AdditiveScore(weight, bias)
    if is_array(options["scale"]):
        arrays["scale"] = jnp.asarray(options["scale"])
    return arrays


def _check(arrays: dict[str, Any], values: dict[str, Any]) -> None:
    """Has the library refuse what it would refuse later, now that the call is at hand."""
    q, k = (_stand_in(arrays[name]) for name in ("q", "k"))
    v = _stand_in(arrays["v"]) if "v" in arrays else k
    known = dict(values)
    for name in ("mask", *FLOAT_OPTIONS, "scale"):
        if is_array(known[name]):
            known[name] = _stand_in(known[name])
    if isinstance(known["score"], AdditiveScore):
        known["score"] = AdditiveScore(*map(_stand_in, known["score"]))
    if isinstance(known["scale"], np.ndarray) and known["scale"].ndim == 0:
        known["scale"] = 1.0  # spread over the heads, with a gradient
    totals = {"cu_seqlens_q": q.shape[0], "cu_seqlens_k": k.shape[0]}
    is_ragged = known["block_table"] is not None or known["layout"] == "thd"
    is_known = all(_is_concrete(known[name]) for name in LENGTHS)
    for name in LENGTHS:
        if is_array(known[name]):
            known[name] = _lengths_stand_in(known[name], totals.get(name))
    if not is_known:  # what these broadcast to depends on the lengths
        for name in ("mask", "bias"):
            if is_array(known[name]) and is_ragged:
                known[name] = np.zeros((), known[name].dtype)
    if is_array(known["seed"]):
        known["seed"] = _checked_seed(known["seed"])
    _core.explain(q, k, v, tuple(known[name] for name in DEFAULTS))


def _stand_in(array: Any) -> Any:
    """An array of NumPy with the shape and dtype of `array`, but no memory."""
    return None if array is None else np.broadcast_to(np.zeros((), array.dtype), array.shape)


def _is_concrete(value: Any) -> bool:
    return not isinstance(value, jax.core.Tracer)


def _lengths_stand_in(lengths: Any, total: int | None) -> Any:
    """The lengths themselves where they are known; elsewhere some that are right."""
    if _is_concrete(lengths):
        return np.asarray(lengths)
    zeros = np.zeros(lengths.shape, lengths.dtype)
    if total is not None and zeros.ndim == 1 and zeros.size:
        zeros[-1] = total
    return zeros


def _checked_seed(seed: Any) -> int:
    """Some seed, in the place of an array that may be one."""
    is_known = any(jnp.issubdtype(seed.dtype, kind) for kind in (jnp.integer, jax.dtypes.prng_key))
    if not is_known:
        raise TypeError(
            f"explain: seed must be an integer or a key of jax.random, found {seed.dtype}"
        )
    if seed.ndim:
        raise ValueError(f"explain: seed must be a scalar, found shape {seed.shape}")
    return 0


def _static(values: dict[str, Any], scale: Any, rank: int, dropout_stream: int) -> Static:
    q_offset, window, score = values["q_offset"], values["window"], values["score"]
    left, right = (-1, -1) if window is None else (-1 if x is None else int(x) for x in window)
    return Static(
        layout="bhsd" if rank == 2 or values["layout"] == "bhsd" else "bshd",
        score=ADDITIVE if isinstance(score, AdditiveScore) else SCORES[score],
        causal=CAUSALS[values["causal"]],
        scale=None if scale is None else float(scale),
        softcap=float(values["softcap"] or 0),
        window=(left, right),
        dropout=float(values["dropout"]),
        q_offset=None if q_offset is None or is_array(q_offset) else int(q_offset),
        dropout_stream=dropout_stream,
    )


def _seed_words(seed: Any) -> Any:
    """The low and the high word of a seed: of an int, an integer scalar, or a key of jax.random."""
    if not is_array(seed):
        return np.array([int(seed) & 0xFFFFFFFF, int(seed) >> 32], np.uint32).view(np.int32)
    if jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        words = jax.random.bits(seed, (2,), jnp.uint32)
    else:
        high = seed >> 32 if seed.dtype.itemsize == 8 else jnp.zeros_like(seed)
        words = jnp.stack([seed, high]).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(words, jnp.int32)


def _with_four_axes(arrays: dict[str, Any]) -> dict[str, Any]:
    full: dict[str, Any] = {
        name: arrays[name].reshape((1,) * (4 - arrays[name].ndim) + arrays[name].shape)
        for name in ("q", "k", "v")
        if name in arrays
    }
    return {**arrays, **full}


def _num_heads(q: Any, layout: str) -> int:
    return 1 if q.ndim == 2 else int(q.shape[-3 if layout == "bhsd" else -2])
