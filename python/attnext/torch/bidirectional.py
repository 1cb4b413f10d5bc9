"""How do queries and keys attend each other in torch? By attnext's co-attention, as an operator."""

from __future__ import annotations

from typing import Any

import torch

from .. import bidirectional as arrays
from . import options as op_options
from .attention import lse_shape, sum_dtype
from .derivatives import differentiable, refused_twice, save_nothing
from .operators import cast_in_autocast, define, require_tensors
from .options import NUM_DIFFERENTIABLE, NUM_TENSORS, detached, show_options

NUM_ARRAYS = 4  # q, k, v_q, v_k


@show_options
def bidirectional_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v_q: torch.Tensor,
    v_k: torch.Tensor,
    *,
    return_lse: bool = False,
    **options: Any,
) -> tuple[torch.Tensor, ...]:
    """Queries attend keys and keys attend queries, by one score matrix, with a gradient.

    Parameters
    ----------
    q, k : Tensor
        (B, Hq, Sq, D) and (B, Hk, Sk, D), as in `attention`.
    v_q : Tensor (B, Hq, Sq, Dv)
        What the keys gather from the queries.
    v_k : Tensor (B, Hk, Sk, Dv)
        What the queries gather from the keys.
    return_lse : bool
        Also return the logarithm of each row's and each column's sum; both have gradients.
    **options
        See `attention`; `out` and `block_table` are not among them.

    Returns
    -------
    out_q : Tensor (B, Hq, Sq, Dv)
        ``softmax(s, over the keys) @ v_k``.
    out_k : Tensor (B, Hq, Sk, Dv)
        ``softmax(s, over the queries).T @ v_q``, one for each query head.
    lse_q, lse_k : Tensor (B, Hq, Sq), (B, Hq, Sk)
        Only with `return_lse`.

    Raises
    ------
    ValueError, TypeError, NotImplementedError, RuntimeError
        As in `attnext.bidirectional_attention`.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> words, regions = torch.randn(29, 64).split([20, 9])
    >>> outs = attnext.torch.bidirectional_attention(words, regions, words, regions)
    >>> outs[0].shape, outs[1].shape
    (torch.Size([20, 64]), torch.Size([9, 64]))
    """
    require_tensors("bidirectional_attention", q=q, k=k, v_q=v_q, v_k=v_k)
    encoded = op_options.encode("bidirectional_attention", q, options)
    results: tuple[torch.Tensor, ...] = _bidirectional(q, k, v_q, v_k, *encoded)
    return results if return_lse else results[:2]


def _kernel(q: Any, k: Any, v_q: Any, v_k: Any, *options: Any) -> tuple[torch.Tensor, ...]:
    inputs = map(detached, (q, k, v_q, v_k))
    return arrays.bidirectional_attention(*inputs, return_lse=True, **op_options.decode(options))


def _fake(q: Any, k: Any, v_q: Any, v_k: Any, *options: Any) -> tuple[torch.Tensor, ...]:
    layout = op_options.OpOptions(*options).layout
    rows, columns = lse_shape(q, layout), lse_shape(k, layout)
    columns = (*rows[:-1], columns[-1])
    out_k = list(q.shape)
    out_k[-2 if layout == "bhsd" or q.dim() == 2 else -3] = columns[-1]
    out_k[-1] = v_q.shape[-1]
    return (
        q.new_empty((*q.shape[:-1], v_k.shape[-1])),
        q.new_empty(out_k),
        q.new_empty(rows, dtype=sum_dtype(q)),
        q.new_empty(columns, dtype=sum_dtype(q)),
    )


def _backward_kernel(*arguments: Any) -> list[torch.Tensor]:
    """Of dout_q, dout_k, dlse_q, dlse_k; the arrays; the results; the options; what is wanted."""
    dout_q, dout_k, dlse_q, dlse_k, *inputs = map(detached, arguments[:12])
    *options, wanted = arguments[12:]
    grads = arrays.bidirectional_attention_backward(
        dout_q, dout_k, *inputs, dlse_q=dlse_q, dlse_k=dlse_k,
        **op_options.decode(tuple(options)),
    )  # fmt: skip
    return [grad for grad, is_wanted in zip(grads, wanted) if is_wanted]


def _backward_fake(*arguments: Any) -> list[torch.Tensor]:
    inputs = arguments[4 : 4 + NUM_ARRAYS]
    *options, wanted = arguments[12:]
    owners = (*inputs, *options[:NUM_DIFFERENTIABLE])
    return [x.new_empty(x.shape) for x, is_wanted in zip(owners, wanted) if is_wanted]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    num_saved = NUM_ARRAYS + NUM_TENSORS
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:num_saved], *output)
    ctx.scalars = inputs[num_saved:]


def _differentiate(ctx: Any, *douts: Any) -> tuple[Any, ...]:
    *inputs, out_q, out_k, lse_q, lse_k = ctx.saved_tensors
    arrays_given, tensors = inputs[:NUM_ARRAYS], inputs[NUM_ARRAYS:]
    wanted = list(ctx.needs_input_grad[: NUM_ARRAYS + NUM_DIFFERENTIABLE])
    dout_q, dout_k, dlse_q, dlse_k = douts
    dout_q = torch.zeros_like(out_q) if dout_q is None else dout_q
    dout_k = torch.zeros_like(out_k) if dout_k is None else dout_k
    grads = iter(_bidirectional_backward(
        dout_q, dout_k, dlse_q, dlse_k, *arrays_given, out_q, out_k, lse_q, lse_k, *tensors,
        *ctx.scalars, wanted,
    ))  # fmt: skip
    found = [next(grads) if is_wanted else None for is_wanted in wanted]
    return (*found, *(None,) * (len(op_options.OpOptions._fields) - NUM_DIFFERENTIABLE))


_operator = define(
    "bidirectional_attention",
    f"(Tensor q, Tensor k, Tensor v_q, Tensor v_k, {op_options.SCHEMA}) -> "
    "(Tensor out_q, Tensor out_k, Tensor lse_q, Tensor lse_k)",
    _kernel,
    _fake,
)
_backward_operator = define(
    "bidirectional_attention_backward",
    "(Tensor dout_q, Tensor dout_k, Tensor? dlse_q, Tensor? dlse_k, Tensor q, Tensor k, "
    "Tensor v_q, Tensor v_k, Tensor out_q, Tensor out_k, Tensor lse_q, Tensor lse_k, "
    f"{op_options.SCHEMA}, bool[] wanted) -> Tensor[]",
    _backward_kernel,
    _backward_fake,
)
cast_in_autocast(_operator, NUM_ARRAYS)
_bidirectional = differentiable(_operator, _differentiate, _setup)
_bidirectional_backward = differentiable(
    _backward_operator, refused_twice("bidirectional_attention"), save_nothing
)
