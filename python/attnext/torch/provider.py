"""How does torch's own attention function come to run on attnext? By overriding its kernels."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.attention

from ..attention import attention as array_attention
from ..gradients import attention_backward
from .options import detached
from .sdpa import scaled_dot_product_attention, split_mask


class SdpaOverride:
    """attnext in the place of torch's attention for the CPU, until `remove`.

    A context manager too: it removes itself at the end. See `override_sdpa`.
    """

    def __init__(self) -> None:
        library = torch.library.Library("aten", "IMPL")
        with warnings.catch_warnings():
            # Overriding is what was asked for.
            warnings.filterwarnings("ignore", "Warning only once for all operators")
            self._register(library)
        self._library: torch.library.Library | None = library

    @staticmethod
    def _register(library: torch.library.Library) -> None:
        fused = "_scaled_dot_product_flash_attention_for_cpu"
        for name, kernel in ((fused, _fused), (f"{fused}_backward", _fused_backward)):
            library.impl(name, kernel, "CPU", allow_override=True)
        for key in ("CPU", "AutogradCPU"):
            library.impl("scaled_dot_product_attention", _composite, key, allow_override=True)

    def remove(self) -> None:
        """Give torch its own kernels back; a second time does nothing."""
        self._library = None  # which takes its registrations along

    def __enter__(self) -> SdpaOverride:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def override_sdpa() -> SdpaOverride:
    """Let ``torch.nn.functional.scaled_dot_product_attention`` run on attnext, on the CPU.

    What calls it follows: ``nn.MultiheadAttention`` while training or with
    ``need_weights=False``, transformers, compiled graphs. ``sdpa_kernel(SDPBackend.MATH)`` still
    chooses torch's own formula. Where torch has a registry of implementations,
    ``torch.nn.attention.activate_flash_attention_impl("attnext")`` does the same.

    Returns
    -------
    SdpaOverride
        Whose ``remove()`` ends it; it also ends with a ``with`` block.

    Notes
    -----
    In a compiled graph dropout and masks that require grad take torch's own formula: torch
    chooses before attnext is asked. ``nn.MultiheadAttention`` in evaluation without gradients
    takes a path of its own that calls no such function;
    ``torch.backends.mha.set_fastpath_enabled(False)`` closes it.

    Examples
    --------
    >>> import torch, attnext.torch
    >>> q, k, v = torch.randn(3, 2, 8, 100, 64)
    >>> with attnext.torch.override_sdpa():
    ...     out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    >>> bool(torch.equal(out, attnext.torch.attention(q, k, v)))
    True
    """
    return SdpaOverride()


def _composite(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """What torch decides by itself is left to torch, and arrives at the fused kernel or not."""
    arguments = (query, key, value, attn_mask, dropout_p, is_causal)
    if _is_for_attnext(query, key, value, attn_mask):
        return scaled_dot_product_attention(*arguments, scale, enable_gqa)
    original = torch.ops.aten.scaled_dot_product_attention.default
    result: torch.Tensor = original.decompose(*arguments, scale=scale, enable_gqa=enable_gqa)
    return result


def _is_for_attnext(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> bool:
    """Eager calls of plain tensors that fit: tracing, torch.func and errors are torch's own."""
    tensors = [x for x in (query, key, value, mask) if x is not None]
    return (
        all(type(x) in (torch.Tensor, torch.nn.Parameter) for x in tensors)
        and not torch._C._are_functorch_transforms_active()
        and torch.backends.cuda.flash_sdp_enabled()
        and all(x.dtype == query.dtype and x.dim() >= 2 for x in (key, value))
        and query.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
        and query.dim() >= 2
        and query.shape[-1] == key.shape[-1] > 0
        and key.shape[-2] == value.shape[-2]
        and (mask is None or mask.dtype in (torch.bool, torch.float32, query.dtype))
    )


def _fused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: torch.Tensor | None = None,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """With results in the strides that torch announces to compiled graphs."""
    options = _fused_options(query, key, dropout_p, is_causal, attn_mask, scale)
    arrays = map(detached, (query, key, value))
    out, lse = array_attention(*arrays, return_lse=True, out=torch.empty_like(query), **options)
    return out, lse.transpose(1, 2).contiguous().transpose(1, 2)


def _fused_backward(
    grad_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: torch.Tensor | None = None,
    scale: float | None = None,
) -> tuple[torch.Tensor, ...]:
    """Likewise: the gradients' heads lie within their rows."""
    options = _fused_options(query, key, dropout_p, is_causal, attn_mask, scale)
    dout, q, k, v, rows = (detached(x).transpose(1, 2) for x in (grad_out, query, key, value, out))
    lse = detached(logsumexp)
    wanted = ("dq", "dk", "dv")  # a bias made of attn_mask gets no gradient here
    grads = attention_backward(dout, q, k, v, rows, lse, layout="bshd", wanted=wanted, **options)
    return tuple(grad.transpose(1, 2) for grad in grads[:3])


def _fused_options(
    query: torch.Tensor,
    key: torch.Tensor,
    dropout_p: float,
    is_causal: bool,
    attn_mask: torch.Tensor | None,
    scale: float | None,
) -> dict[str, Any]:
    if dropout_p:
        raise NotImplementedError(
            f"scaled_dot_product_attention: dropout_p must be 0 in the fused kernel, found "
            f"{dropout_p}"
        )
    mask, bias = split_mask(detached(attn_mask), (*query.shape[:-1], key.shape[-2]))
    causal = "top_left" if is_causal else False
    return {"causal": causal, "mask": mask, "bias": bias, "scale": scale}


def register_sdpa() -> None:
    """Make ``"attnext"`` known to ``torch.nn.attention.activate_flash_attention_impl``.

    ``import attnext.torch`` does it where this torch has that registry; nothing is activated.

    Raises
    ------
    RuntimeError
        This torch has no such registry.

    See Also
    --------
    override_sdpa : The same without a registry.

    Examples
    --------
    >>> import attnext.torch
    >>> from torch.nn.attention import list_flash_attention_impls
    >>> "attnext" in list_flash_attention_impls()
    True
    """
    if not has_registry():
        raise RuntimeError(
            f"register_sdpa: torch {torch.__version__} has no registry of attention "
            "implementations; use override_sdpa()"
        )
    torch.nn.attention.register_flash_attention_impl("attnext", register_fn=override_sdpa)


def has_registry() -> bool:
    """Whether this torch keeps a list of implementations to activate."""
    return hasattr(torch.nn.attention, "register_flash_attention_impl")
