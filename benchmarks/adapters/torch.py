"""How does PyTorch run a case? By scaled_dot_product_attention; what that lacks, written out."""

import torch
from torch.nn import functional

from .numpy import additive_mask


def version():
    """The library's version."""
    return torch.__version__


def why_not(case):
    """It has no packed sequences on a CPU; additive scores and masks it takes as big arrays."""
    return "no packed sequences on a CPU" if case.lengths else None


def is_fused(case):
    """Whether scaled_dot_product_attention itself computes the case, or a composition does."""
    return case.score in ("dot", "cosine") and not (case.softcap or case.sinks)


def prepare(case, inputs, threads):
    """The call, ready to be timed."""
    torch.set_num_threads(threads)
    dtype = getattr(torch, case.dtype)
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    q, k, v = (tensors[name].to(dtype) for name in "qkv")
    # Its own causal flag is aligned at the top left: the same only where lengths are equal.
    own_causal = case.causal and case.window is None and case.seqlen == case.keys
    own_causal = own_causal and is_fused(case) and not (case.alibi or "bias" in inputs or case.mask)
    added = None
    if not own_causal:
        added = additive_mask(case, inputs)
        added = None if added is None else torch.from_numpy(added).to(dtype)
    attend = _fused(case, own_causal) if is_fused(case) else _written_out(case, tensors)
    if not case.backward:
        return lambda: _without_gradient(attend, q, k, v, added)
    dout = tensors["dout"].to(dtype)
    for tensor in (q, k, v):
        tensor.requires_grad_()
    out = attend(q, k, v, added)
    return lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)


def _without_gradient(attend, q, k, v, added):
    with torch.no_grad():
        return attend(q, k, v, added)


def _fused(case, own_causal):
    def attend(q, k, v, added):
        if case.score == "cosine":
            q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=added, dropout_p=case.dropout, is_causal=own_causal,
            scale=case.scale, enable_gqa=case.heads != case.key_heads,
        )  # fmt: skip

    return attend


def _scores(case, weight, q, k):
    if case.score == "neg_sq_l2":
        norms = (q * q).sum(-1, keepdim=True) + (k * k).sum(-1, keepdim=True).mT
        return 2 * (q @ k.mT) - norms
    if case.score == "neg_l2":
        return -torch.cdist(q, k)
    if case.score == "additive":
        return torch.tanh(q[..., :, None, :] + k[..., None, :, :]) @ weight
    return q @ k.mT


def _written_out(case, tensors):
    weight, sinks = tensors.get("weight"), tensors.get("sinks")

    def attend(q, k, v, added):
        s = _scores(case, weight, q, k) * case.scale
        if case.softcap:
            s = case.softcap * torch.tanh(s / case.softcap)
        if added is not None:
            s = s + added
        if sinks is None:
            return torch.softmax(s, dim=-1) @ v
        column = sinks[:, None, None].expand(*s.shape[:-1], 1)
        return torch.softmax(torch.cat((s, column), dim=-1), dim=-1)[..., :-1] @ v

    return attend


def read(case, result):
    """The arrays of the result."""
    tensors = zip(("dq", "dk", "dv"), result, strict=True) if case.backward else (("out", result),)
    return {name: tensor.detach().double().numpy() for name, tensor in tensors}
