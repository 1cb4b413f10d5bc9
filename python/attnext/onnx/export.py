"""How is attnext's operator of torch written in ONNX? As one Attention node, and what it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import torch
    from onnxscript import evaluator
    from onnxscript import opset23 as op
except ImportError as error:
    raise ImportError(
        f'attnext.onnx.translations needs {error.name}: pip install "attnext[onnx,torch]"',
        name=error.name,
    ) from error

from .. import torch as _attnext_torch  # noqa: F401  (defines torch.ops.attnext)
from ..torch.options import OpOptions

INT64 = 7  # onnx.TensorProto.INT64


class OutputAlone(tuple[Any]):
    """What the operator of torch returns, of which ONNX's has no lse."""

    def __getitem__(self, index: Any) -> Any:
        if index == 1:
            raise NotImplementedError("attention: return_lse cannot be exported: ONNX has no lse")
        return super().__getitem__(index)


def table() -> dict[Any, Callable[..., Any]]:
    """Translations by operator."""
    return {torch.ops.attnext.attention.default: write_attention}


def write_attention(q: Any, k: Any, v: Any, *given: Any) -> Any:
    """The nodes for one call, from the values of its arrays and what its options are."""
    o = OpOptions(*given)
    require_opset(evaluator.default().opset.version)
    refuse(o)
    rank = len(q.shape)
    is_square = seqlen(q, o.layout) == seqlen(k, o.layout)
    q, k, v = (canonical(x, o.layout, rank) for x in (q, k, v))
    is_causal = is_plainly_causal(o, is_square)
    visible = visible_pairs(o, q, k, is_causal)
    attn_mask = mask_and_bias(o, q, k, visible)
    attributes = {
        "scale": o.scale,
        "softcap": o.softcap or None,
        "is_causal": int(is_causal) or None,
    }
    given_attributes = {name: value for name, value in attributes.items() if value is not None}
    out = op.Attention(q, k, v, attn_mask, **given_attributes)
    out = out[0] if isinstance(out, tuple | list) else out
    return OutputAlone((original(out, o.layout, rank),))


def require_opset(version: int) -> None:
    """Refuses what would become an invalid model."""
    if version < op.version:
        raise ValueError(
            f"attention: opset_version must be at least {op.version}, whose Attention it becomes, "
            f"found {version}"
        )


def refuse(o: OpOptions) -> None:
    """Names what no Attention node says."""
    reasons = {
        "score": o.score != "dot" and f"ONNX has the dot product only, found {o.score!r}",
        "scale": o.head_scales is not None and "ONNX has one for all heads, found a tensor",
        "sinks": o.sinks is not None and "ONNX has none",
        "dropout": o.dropout > 0 and f"ONNX has none, found {o.dropout}; export in eval mode",
        "layout": o.layout == "thd" and "ONNX has no packed sequences, found 'thd'",
        "block_table": o.block_table is not None and "ONNX has no pages",
    }
    for name, reason in reasons.items():
        if reason:
            raise NotImplementedError(f"attention: {name} cannot be exported: {reason}")


def seqlen(x: Any, layout: str) -> Any:
    """A number, or the name of a dimension that is only known when the model runs."""
    return x.shape[-3 if layout == "bshd" and len(x.shape) > 2 else -2]


def canonical(x: Any, layout: str, rank: int) -> Any:
    """(B, H, S, D), whatever the rank and layout."""
    if layout == "bshd" and rank > 2:
        x = op.Transpose(x, perm=[1, 0, 2] if rank == 3 else [0, 2, 1, 3])
    return op.Unsqueeze(x, integers(range(4 - rank))) if rank < 4 else x


def original(out: Any, layout: str, rank: int) -> Any:
    """What `canonical` did, undone."""
    if rank < 4:
        out = op.Squeeze(out, integers(range(4 - rank)))
    if layout == "bshd" and rank > 2:
        out = op.Transpose(out, perm=[1, 0, 2] if rank == 3 else [0, 2, 1, 3])
    return out


def is_plainly_causal(o: OpOptions, is_square: bool) -> bool:
    """Whether ONNX's own rule is the one asked for: the first query sees the first key."""
    is_shifted = o.q_offset is not None or o.q_lengths is not None or o.kv_lengths is not None
    if o.causal == "none" or is_shifted:
        return False
    return o.causal == "top_left" or is_square


def visible_pairs(o: OpOptions, q: Any, k: Any, is_causal: bool) -> Any:
    """The mask of every rule that the node itself does not state; None where there is none."""
    rules = [] if o.mask is None else [o.mask]
    row, column = positions(q, k)
    right = 0 if o.causal != "none" else o.window_right
    if o.window_left >= 0 or (right >= 0 and not is_causal):
        distance = op.Sub(op.Add(row, diagonal(o, q, k)), column)
        if o.window_left >= 0:
            rules.append(op.LessOrEqual(distance, integers(o.window_left)))
        if right >= 0 and not is_causal:
            rules.append(op.GreaterOrEqual(distance, integers(-right)))
    if o.kv_lengths is not None:
        rules.append(op.Less(column, per_batch(o.kv_lengths)))
    if o.q_lengths is not None:
        rules.append(op.Less(row, per_batch(o.q_lengths)))
    visible = None
    for rule in rules:
        visible = rule if visible is None else op.And(visible, rule)
    return visible


def diagonal(o: OpOptions, q: Any, k: Any) -> Any:
    """The key position of the first query."""
    if o.q_offset is not None:
        return per_batch(o.q_offset)
    if o.causal == "top_left":
        return integers(0)
    len_q, len_k = (
        count(x) if lengths is None else per_batch(lengths)
        for x, lengths in ((q, o.q_lengths), (k, o.kv_lengths))
    )
    return op.Sub(len_k, len_q)


def mask_and_bias(o: OpOptions, q: Any, k: Any, visible: Any) -> Any:
    """Both as the one input that ONNX has for them, as wide as the keys, for all queries."""
    bias = None if o.bias is None else op.CastLike(o.bias, q)
    if o.alibi_slopes is not None:
        row, column = positions(q, k)
        distance = op.Abs(op.Sub(op.Add(row, diagonal(o, q, k)), column))
        slopes = op.CastLike(op.Unsqueeze(o.alibi_slopes, integers([-1, -2])), q)
        linear = op.Neg(op.Mul(slopes, op.CastLike(distance, q)))
        bias = linear if bias is None else op.Add(bias, linear)
    joined = bias if visible is None else visible
    if joined is None:
        return None
    if bias is not None and visible is not None:
        hidden = op.CastLike(op.Constant(value_float=float("-inf")), q)
        joined = op.Where(visible, bias, hidden)
    # A mask narrower than the keys would hide the others, where attnext broadcasts it.
    ones = integers([1, 1])
    sizes = (op.Shape(x, start=2, end=3) for x in (q, k))
    return op.Expand(joined, op.Concat(ones, *sizes, axis=0))


def positions(q: Any, k: Any) -> tuple[Any, ...]:
    """0, 1, 2 ... down the queries, (Sq, 1), and along the keys, (1, Sk)."""
    return tuple(
        op.Unsqueeze(op.Range(integers(0), count(x), integers(1)), integers([axis]))
        for x, axis in ((q, 1), (k, 0))
    )


def count(x: Any) -> Any:
    """How long the sequence of x is, without axes."""
    return op.Squeeze(op.Shape(x, start=2, end=3), integers([0]))


def per_batch(lengths: Any) -> Any:
    """A number, or one for each member of the batch, against (B, H, Sq, Sk)."""
    return op.Reshape(op.Cast(lengths, to=INT64), integers([-1, 1, 1, 1]))


def integers(values: Any) -> Any:
    """A constant of int64."""
    if isinstance(values, int):
        return op.Constant(value_int=values)
    return op.Constant(value_ints=list(values))
