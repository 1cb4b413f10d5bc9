"""How does attnext run ONNX's Attention, opset 23 to 25? As an operator of ``onnx.reference``."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.reference.op_run import OpRun

from ..attention import attention
from ..passes import attention_weights

Array = np.ndarray[Any, Any]
RAW, CAPPED, BIASED, SOFTMAX = range(4)  # what qk_matmul_output_mode asks for

#: What makes keys invisible; other options change the scores.
RULES = ("causal", "window", "q_offset", "kv_lengths", "mask")


class Attention(OpRun):
    """ONNX's operator Attention, computed by `attnext.attention`.

    ``onnx.reference.ReferenceEvaluator(model, new_ops=[attnext.onnx.Attention])`` runs a model with
    it: every input, output and attribute of opset 23 to 25. Sums are in float32 (float64 where
    inputs or `softmax_precision` are); a lower `softmax_precision` changes nothing.

    Notes
    -----
    ONNX counts causal rule and windows from the number of past keys: the length of `past_key`,
    `nonpad_kv_seqlen` less the number of queries, or 0 with neither, which is `attention`'s
    "top_left". A mask is True where a query may attend; one narrower than the keys hides those
    beyond it. A query without visible keys yields 0.
    """

    op_domain = ""

    def _run(
        self,
        q: Array,
        k: Array,
        v: Array,
        attn_mask: Array | None = None,
        past_key: Array | None = None,
        past_value: Array | None = None,
        nonpad_kv_seqlen: Array | None = None,
        **attributes: Any,
    ) -> tuple[Array, ...]:
        _check_cache(past_key, past_value, nonpad_kv_seqlen)
        is_flat = q.ndim == 3
        q = _heads_apart("Q", q, attributes["q_num_heads"], "q_num_heads")
        k = _heads_apart("K", k, attributes["kv_num_heads"], "kv_num_heads")
        v = _heads_apart("V", v, attributes["kv_num_heads"], "kv_num_heads")
        num_past = 0
        if past_key is not None and past_value is not None:
            num_past = past_key.shape[2]
            k, v = np.concatenate([past_key, k], 2), np.concatenate([past_value, v], 2)
        dtype = _working_dtype(q, v, attributes["softmax_precision"])
        wide = [x.astype(dtype, copy=False) for x in (q, k, v)]
        options = {
            "scale": attributes["scale"],
            "softcap": attributes["softcap"],
            "causal": bool(attributes["is_causal"]),
            "window": tuple(
                attributes.get(f"{side}_window_size", -1) for side in ("left", "right")
            ),
            "q_offset": num_past if nonpad_kv_seqlen is None else nonpad_kv_seqlen - q.shape[2],
            "kv_lengths": nonpad_kv_seqlen,
            **_split_mask(attn_mask, k.shape[2], dtype),
        }
        out = attention(*wide, **options).astype(q.dtype, copy=False)
        results: list[Array] = [_heads_together(out) if is_flat else out, k, v]
        if len(self.onnx_node.output) > 3 and self.onnx_node.output[3]:
            scores = _scores_at(attributes["qk_matmul_output_mode"], wide[0], wide[1], options)
            results.append(scores.astype(q.dtype, copy=False))
        return tuple(results[: len(self.onnx_node.output)])


def _check_cache(past_key: Any, past_value: Any, lengths: Any) -> None:
    if (past_key is None) != (past_value is None):
        missing = "past_key" if past_key is None else "past_value"
        raise ValueError(
            f"Attention: past_key and past_value must be given together, found no {missing}"
        )
    if past_key is not None and lengths is not None:
        raise ValueError("Attention: nonpad_kv_seqlen must not be given with past_key, found both")


def _heads_apart(name: str, x: Array, num_heads: int | None, attribute: str) -> Array:
    """(B, S, heads * D) as (B, heads, S, D), a view; rank 4 as it is."""
    if x.ndim == 3:
        if not num_heads or x.shape[2] % num_heads:
            raise ValueError(
                f"Attention: {attribute} must divide the last axis of a {name} of rank 3, "
                f"found {num_heads} for shape {x.shape}"
            )
        return x.reshape(*x.shape[:2], num_heads, -1).swapaxes(1, 2)
    if x.ndim != 4:
        raise ValueError(f"Attention: {name} must have 3 or 4 axes, found shape {x.shape}")
    if num_heads not in (None, x.shape[1]):
        raise ValueError(
            f"Attention: {attribute} must be that of a {name} of rank 4, or left out, "
            f"found {num_heads} for shape {x.shape}"
        )
    return x


def _heads_together(out: Array) -> Array:
    batch, heads, rows, dim = out.shape
    return out.swapaxes(1, 2).reshape(batch, rows, heads * dim)


def _working_dtype(q: Array, v: Array, softmax_precision: int | None) -> Any:
    """The inputs' type: a wider one where V has another or the softmax is to be in double."""
    if softmax_precision == TensorProto.DOUBLE:
        return np.dtype(np.float64)
    if q.dtype == v.dtype:
        return q.dtype
    return np.dtype(np.float64 if np.float64 in (q.dtype, v.dtype) else np.float32)


def _split_mask(mask: Array | None, seqlen_k: int, dtype: Any) -> dict[str, Array]:
    """Our mask or bias, as wide as the keys."""
    if mask is None:
        return {}
    hidden = False if mask.dtype == bool else -np.inf
    mask = mask if mask.dtype == bool else mask.astype(dtype, copy=False)
    missing = seqlen_k - mask.shape[-1]
    if missing > 0:
        mask = np.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, missing)], constant_values=hidden)
    return {"mask": mask} if mask.dtype == bool else {"bias": mask}


def _scores_at(mode: int, q: Array, k: Array, options: dict[str, Any]) -> Array:
    """The square that a model asks for: scores at one step of their way to weights."""
    if mode not in (RAW, CAPPED, BIASED, SOFTMAX):
        raise ValueError(f"Attention: qk_matmul_output_mode must be in [0, 3], found {mode}")
    if mode == SOFTMAX:
        return np.asarray(attention_weights(q, k, **options))
    dtype = np.dtype(np.float64 if q.dtype == np.float64 else np.float32)
    keys = np.repeat(k.astype(dtype), q.shape[1] // k.shape[1], axis=1).swapaxes(2, 3)
    scale, cap = options["scale"], options["softcap"]
    scores = q.astype(dtype) @ keys * (q.shape[3] ** -0.5 if scale is None else scale)
    if mode >= CAPPED and cap:
        scores = cap * np.tanh(scores / cap)
    if mode == BIASED:
        bias = options.get("bias", np.zeros((), dtype))
        scores = np.where(_visible(q, k, options), scores + bias, -np.inf)
    return np.asarray(scores, dtype)


def _visible(q: Array, k: Array, options: dict[str, Any]) -> Array:
    """Which pairs may attend: by the kernels' own rule, where all that do weigh alike."""
    rules = {name: options[name] for name in RULES if name in options}
    p = attention_weights(np.zeros_like(q), np.zeros_like(k), **rules)
    return np.asarray(p > 0)
