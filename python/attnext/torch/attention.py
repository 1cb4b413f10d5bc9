"""How does attention run in torch? As an operator with a gradient, options and all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..attention import AdditiveScore
from ..attention import attention as array_attention
from ..gradients import AttentionGrads
from ..gradients import attention_backward as array_backward
from . import options as op_options
from .derivatives import differentiable, refused_twice, save_nothing
from .operators import cast_in_autocast, define, require_tensors
from .options import NUM_DIFFERENTIABLE, NUM_TENSORS, detached
from .vmap import folded_backward, folded_forward

NUM_ARRAYS = 3  # q, k, v
NUM_GRADIENTS = NUM_ARRAYS + NUM_DIFFERENTIABLE


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    score: str | AdditiveScore = "dot",
    scale: float | torch.Tensor | None = None,
    causal: bool | str = False,
    q_offset: Any = None,
    window: Sequence[int | None] | None = None,
    softcap: float | None = None,
    mask: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    dropout: float = 0.0,
    seed: int | torch.Tensor | None = None,
    q_lengths: Any = None,
    kv_lengths: Any = None,
    cu_seqlens_q: Any = None,
    cu_seqlens_k: Any = None,
    block_table: Any = None,
    layout: str = "bhsd",
    return_lse: bool = False,
    out: torch.Tensor | None = None,
    backend: str | None = None,
) -> Any:
    """`attnext.attention` with a gradient: ``softmax(scale * q @ k.T + bias) @ v``.

    Parameters
    ----------
    q : Tensor (B, Hq, Sq, D), (Hq, Sq, D) or (Sq, D)
        float64, float32, float16 or bfloat16; any strides.
    k : Tensor (B, Hk, Sk, D), (Hk, Sk, D) or (Sk, D)
        Hq is a multiple of Hk.
    v : Tensor (B, Hk, Sk, Dv), (Hk, Sk, Dv) or (Sk, Dv)
        Dv may differ from D.
    score : {"dot", "cosine", "neg_l2", "neg_sq_l2"} or AdditiveScore
        As in `attnext.attention`; the tensors of an `AdditiveScore` have gradients.
    scale : float or Tensor (Hq,) or (), optional
        A tensor has a gradient; one without axes counts for all heads.
    seed : int or 0-d int64 Tensor, optional
        Required with `dropout`. A tensor may be drawn inside a compiled graph.
    return_lse : bool
        Also return the logarithm of each row's sum, which has a gradient too.
    out : Tensor, optional
        Where to put the result; only where nothing requires grad.
    causal, q_offset, window, softcap, mask, bias, alibi_slopes, sinks, dropout, q_lengths
        See `attnext.attention`. bias, alibi_slopes and sinks have gradients. True is
        bottom-right, unlike ``is_causal`` of torch, see `scaled_dot_product_attention`.
    kv_lengths, cu_seqlens_q, cu_seqlens_k, block_table, layout, backend
        See `attnext.attention`. `block_table` has no gradient.

    Returns
    -------
    out : Tensor (B, Hq, Sq, Dv)
        In q's rank, layout and dtype.
    lse : Tensor (B, Hq, Sq)
        Only with `return_lse`; float32 (float64 for float64).

    Raises
    ------
    ValueError, TypeError, NotImplementedError, RuntimeError
        As in `attnext.attention`; a device that no back end computes on is a TypeError.

    Notes
    -----
    ``torch.ops.attnext.attention`` below: it compiles without graph breaks, exports, and takes
    part in vmap, torch.func and autocast (which casts q, k and v). Gradients of gradients and
    forward-mode derivatives are refused; of torch.func, only vmap compiles.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> q, k, v = (torch.randn(2, 4, 10, 16, requires_grad=True) for _ in range(3))
    >>> attnext.torch.attention(q, k, v, causal=True).sum().backward()
    >>> q.grad.shape
    torch.Size([2, 4, 10, 16])
    """
    require_tensors("attention", q=q, k=k, v=v, **({} if out is None else {"out": out}))
    options = op_options.encode("attention", q, {
        "score": score, "scale": scale, "causal": causal, "q_offset": q_offset, "window": window,
        "softcap": softcap, "mask": mask, "bias": bias, "alibi_slopes": alibi_slopes,
        "sinks": sinks, "dropout": dropout, "seed": seed, "q_lengths": q_lengths,
        "kv_lengths": kv_lengths, "cu_seqlens_q": cu_seqlens_q, "cu_seqlens_k": cu_seqlens_k,
        "block_table": block_table, "layout": layout, "backend": backend,
    })  # fmt: skip
    if out is None:
        out, lse = attention_op(q, k, v, *options)
    else:
        _require_no_gradient(out=out, q=q, k=k, v=v, **op_options.differentiable(options))
        lse = _attention_into(q, k, v, *options, out)
    return (out, lse) if return_lse else out


def _require_no_gradient(**tensors: Any) -> None:
    if not torch.is_grad_enabled():
        return
    for name, tensor in tensors.items():
        if tensor is not None and tensor.requires_grad:
            raise ValueError(
                f"attention: out must be given only where nothing requires grad, found that "
                f"{name} does; use torch.no_grad()"
            )


def _kernel(q: Any, k: Any, v: Any, *options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    arrays = map(detached, (q, k, v))
    result: tuple[torch.Tensor, torch.Tensor] = array_attention(
        *arrays, return_lse=True, **op_options.decode(options)
    )
    return result


def _kernel_into(q: Any, k: Any, v: Any, *rest: Any) -> torch.Tensor:
    *options, out = rest
    arrays = map(detached, (q, k, v))
    _, lse = array_attention(*arrays, return_lse=True, out=out, **op_options.decode(tuple(options)))
    found: torch.Tensor = lse
    return found


def _fake_into(q: Any, k: Any, v: Any, *rest: Any) -> torch.Tensor:
    return _fake(q, k, v, *rest[:-1])[1]


def _fake(q: Any, k: Any, v: Any, *options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    layout = op_options.OpOptions(*options).layout
    out = q.new_empty((*q.shape[:-1], v.shape[-1]))
    return out, q.new_empty(lse_shape(q, layout), dtype=sum_dtype(q))


def lse_shape(q: torch.Tensor, layout: str) -> tuple[int, ...]:
    """(B, Hq, Sq), without the axes that q lacks."""
    axes = tuple(q.shape[:-1])
    if layout == "bhsd" or q.dim() == 2:
        return axes
    return (*axes[:-2], axes[-1], axes[-2])


def sum_dtype(q: torch.Tensor) -> torch.dtype:
    """What sums over q are of."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _backward_kernel(
    dout: Any, dlse: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, *rest: Any
) -> list[torch.Tensor]:
    *options, wanted = rest
    arrays = map(detached, (dout, q, k, v, out, lse))
    names = [name for name, is_wanted in zip(AttentionGrads._fields, wanted) if is_wanted]
    grads = array_backward(
        *arrays, dlse=detached(dlse), wanted=names, **op_options.decode(tuple(options))
    )
    return [grad for grad, is_wanted in zip(grads, wanted) if is_wanted]


def _backward_fake(
    dout: Any, dlse: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, *rest: Any
) -> list[torch.Tensor]:
    *options, wanted = rest
    owners = (q, k, v, *options[:NUM_DIFFERENTIABLE])
    return [x.new_empty(x.shape) for x, is_wanted in zip(owners, wanted) if is_wanted]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    num_saved = NUM_ARRAYS + NUM_TENSORS
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:num_saved], *output)
    ctx.scalars = inputs[num_saved:]


def _differentiate(ctx: Any, dout: Any, dlse: Any) -> tuple[Any, ...]:
    *inputs, out, lse = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:NUM_GRADIENTS])
    dout = torch.zeros_like(out) if dout is None else dout
    q, k, v, *tensors = inputs
    grads = iter(
        attention_backward_op(dout, dlse, q, k, v, out, lse, *tensors, *ctx.scalars, wanted)
    )
    found = [next(grads) if is_wanted else None for is_wanted in wanted]
    return (*found, *(None,) * (NUM_ARRAYS + len(op_options.OpOptions._fields) - NUM_GRADIENTS))


_operator = define(
    "attention",
    f"(Tensor q, Tensor k, Tensor v, {op_options.SCHEMA}) -> (Tensor out, Tensor lse)",
    _kernel,
    _fake,
)
_attention_into = define(
    "attention_into",
    f"(Tensor q, Tensor k, Tensor v, {op_options.SCHEMA}, Tensor(a!) out) -> Tensor",
    _kernel_into,
    _fake_into,
)
_backward_operator = define(
    "attention_backward",
    "(Tensor dout, Tensor? dlse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
    f"{op_options.SCHEMA}, bool[] wanted) -> Tensor[]",
    _backward_kernel,
    _backward_fake,
)
cast_in_autocast(_operator, NUM_ARRAYS)
attention_op = differentiable(
    _operator, _differentiate, _setup, folded_forward(_operator, NUM_ARRAYS)
)
attention_backward_op = differentiable(
    _backward_operator,
    refused_twice("attention"),
    save_nothing,
    folded_backward(_backward_operator, 2, NUM_ARRAYS),
)
