"""How do models of Hugging Face attend with attnext? As an implementation of transformers."""

from __future__ import annotations

from typing import Any

try:
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask
except ImportError as error:
    missing = "PyTorch" if error.name == "torch" else "transformers"
    raise ImportError(
        f'attnext.hf needs {missing}: pip install "attnext[hf]"', name=error.name
    ) from error

from .torch import attention, attention_weights

__all__ = ["attention_forward", "register"]

#: What models hand to every implementation, and attention's result does not depend on: positions
#: and router are done with before it, lengths are hints, and attnext is deterministic anyway.
HARMLESS = frozenset({
    "cache_position", "deterministic", "labels", "logits_to_keep", "max_length_k", "max_length_q",
    "num_items_in_batch", "output_hidden_states", "output_router_logits", "position_embeddings",
    "position_ids", "return_dict", "return_loss", "seq_idx", "use_cache",
})  # fmt: skip


def register(name: str = "attnext") -> None:
    """Makes attnext an attention implementation of transformers.

    Afterwards ``model.set_attn_implementation(name)``, or ``from_pretrained(...,
    attn_implementation=name)``, runs a model on it: encoders and decoders, padded batches,
    generation with any cache but a paged one, grouped queries, sliding windows, soft-capped scores,
    attention sinks, position biases, and training with dropout.

    Parameters
    ----------
    name : str
        How models name it.

    Raises
    ------
    ValueError
        transformers has another implementation of that name.
    TypeError
        The name is no string.

    See Also
    --------
    attention_forward : What is called, and how its arguments are understood.

    Notes
    -----
    The mask of a padded batch is built by transformers, a byte for each pair of a query and a key;
    a batch without padding has none, unless a sliding window is narrower than it is long. Models
    that attend by code of their own (Bloom, DeBERTa, Falcon and MPNet among others) call no
    implementation, whichever is set.

    Examples
    --------
    >>> import attnext.hf
    >>> attnext.hf.register()
    >>> from transformers import BertConfig, BertModel
    >>> config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    >>> model = BertModel(config).eval()
    >>> model.set_attn_implementation("attnext")
    """
    if not isinstance(name, str):
        raise TypeError(f"register: name must be a string, found {type(name).__name__}")
    is_taken = AttentionInterface().get(name, attention_forward) is not attention_forward
    if is_taken or AttentionMaskInterface().get(name, sdpa_mask) is not sdpa_mask:
        raise ValueError(f"register: name must be free, found that transformers has {name!r}")
    AttentionInterface.register(name, attention_forward)
    AttentionMaskInterface.register(name, sdpa_mask)


def attention_forward(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    *,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    output_attentions: bool | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    cu_seq_lens_k: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention as transformers' implementations are called.

    Parameters
    ----------
    module : torch.nn.Module
        Its `is_causal` counts where the argument is None.
    query : Tensor (B, Hq, Sq, D)
        Of batch 1 where all members of the batch ask the same.
    key, value : Tensor (B, Hk, Sk, D)
        Heads are not repeated for grouped queries.
    attention_mask : Tensor (B or 1, Hq or 1, Sq, Sk), optional
        bool: True may attend; float: added to the scores. It states every rule, sliding window
        included. None: with `is_causal` and more than one query, the first query sees the first key
        and `sliding_window` keys including its own; otherwise all see all.
    dropout : float
        Its seed is drawn from torch's generator.
    scaling : float, optional
        Factor of the scores; by default ``1 / sqrt(D)``.
    softcap, s_aux, position_bias : optional
        `softcap`, `sinks` and `bias` of `attnext.attention`; the latter two have gradients.
    output_attentions : bool, optional
        Also return the weights, before dropout; they are a square.
    cu_seq_lens_q, cu_seq_lens_k : Tensor, optional
        Where packed sequences begin and end, in a batch of 1.
    **others
        What the result does not depend on, or None.

    Returns
    -------
    out : Tensor (B, Sq, Hq, D)
    weights : Tensor (B, Hq, Sq, Sk) or None

    Raises
    ------
    NotImplementedError
        An argument that is not known to leave the result alone; a paged cache is one.
    ValueError, TypeError, RuntimeError
        As `attnext.attention`.

    Notes
    -----
    A query whose mask hides every key, as of padding on the left, yields 0; "eager" and "sdpa" of
    transformers let it attend to all alike. No real token sees either.
    """
    _refuse_unknown(others)
    if query.shape[0] == 1 < key.shape[0]:
        query = query.expand(key.shape[0], -1, -1, -1)
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    options: dict[str, Any] = {"scale": scaling, "softcap": softcap, "sinks": s_aux}
    if dropout:
        options |= {"dropout": dropout, "seed": torch.randint(2**63 - 1, (), dtype=torch.int64)}
    if cu_seq_lens_q is not None:
        _check_packed(query, position_bias, output_attentions)
        starts = (cu_seq_lens_q, cu_seq_lens_q if cu_seq_lens_k is None else cu_seq_lens_k)
        if attention_mask is None:
            options |= _rules(is_causal, "bottom_right", sliding_window)
            return _attend_packed(query, key, value, starts, options), None
        attention_mask = _within_sequences(attention_mask, starts)
    is_causal = is_causal and attention_mask is None and query.shape[2] > 1
    options |= _rules(is_causal, "top_left", sliding_window)
    options |= _mask_and_bias(attention_mask, position_bias)
    weights = attention_weights(query, key, **options) if output_attentions else None
    arrays = (x.transpose(1, 2) for x in (query, key, value))
    return attention(*arrays, layout="bshd", **options), weights


def _refuse_unknown(others: dict[str, Any]) -> None:
    for name, found in others.items():
        if name not in HARMLESS and found is not None:
            raise NotImplementedError(
                f"attention_forward: {name} is not known to attnext and might change the result, "
                f"found {type(found).__name__}"
            )


def _rules(is_causal: bool, corner: str, sliding_window: int | None) -> dict[str, Any]:
    """Where no mask states them. transformers counts a query's own key into a causal window.

    A window to both sides is always in the mask, unless it is wider than the keys are many.
    """
    if not is_causal:
        return {}
    return {"causal": corner, "window": (sliding_window - 1, 0) if sliding_window else None}


def _mask_and_bias(mask: Any, position_bias: Any) -> dict[str, Any]:
    """A bool mask hides; a float one is added, as position biases are."""
    if mask is None:
        return {"bias": position_bias}
    if mask.dim() != 4:
        raise ValueError(
            "attention_forward: attention_mask must be (B, H, Sq, Sk), each but the last or 1, "
            f"found shape {tuple(mask.shape)}"
        )
    if mask.dtype == torch.bool:
        return {"mask": mask, "bias": position_bias}
    return {"bias": mask if position_bias is None else mask + position_bias}


def _check_packed(query: Any, position_bias: Any, output_attentions: bool | None) -> None:
    if query.shape[0] != 1:
        raise ValueError(
            "attention_forward: query must have a batch of 1 with cu_seq_lens_q, "
            f"found {query.shape[0]}"
        )
    for name, found in (("position_bias", position_bias), ("output_attentions", output_attentions)):
        if found is not None and found is not False:
            raise NotImplementedError(
                f"attention_forward: {name} is not there for packed sequences, of cu_seq_lens_q"
            )


def _attend_packed(query: Any, key: Any, value: Any, starts: Any, options: Any) -> torch.Tensor:
    arrays = (x[0].transpose(0, 1) for x in (query, key, value))
    out: torch.Tensor = attention(
        *arrays, layout="thd", cu_seqlens_q=starts[0], cu_seqlens_k=starts[1], **options
    )
    return out[None]


def _within_sequences(mask: torch.Tensor, starts: Any) -> torch.Tensor:
    """The mask, and no token sees those of another sequence."""
    owners = (
        torch.bucketize(torch.arange(count, device=mask.device), ends[1:], right=True)
        for count, ends in zip(mask.shape[2:], starts)
    )
    queries, keys = owners
    is_own = queries[:, None] == keys
    return mask & is_own if mask.dtype == torch.bool else mask.masked_fill(~is_own, -torch.inf)
