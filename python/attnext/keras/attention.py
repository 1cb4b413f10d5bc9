"""`keras.layers.Attention` and `AdditiveAttention`, without the matrix of scores."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from attnext.attention import AdditiveScore

from . import backends
from .attend import attend


class _WithoutScores(keras.layers.Attention):  # type: ignore[misc]
    """How both layers are called; they differ in what makes a score."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.supports_jit = backends.can_be_compiled()

    def call(
        self,
        inputs: list[Any],
        mask: list[Any] | None = None,
        training: bool = False,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        self._validate_inputs(inputs=inputs, mask=mask)
        q, v, k = (ops.convert_to_tensor(x) for x in (*inputs, inputs[1])[:3])
        q_mask, v_mask = (None, None) if mask is None else mask[:2]
        batch_axes = ops.shape(q)[:-2]
        scored_q, scored_k, options = self._score(q, k)
        made = attend(
            _as_one_head(scored_q),
            _as_one_head(scored_k),
            _as_one_head(v),
            are_weights_wanted=return_attention_scores,
            dropout=self.dropout if training else 0,
            generator=self.seed_generator if self.dropout > 0 else None,
            mask=_mask_of_pairs(v_mask, batch_axes),
            causal="top_left" if use_causal_mask else False,
            **options,
        )
        out = ops.reshape(made.out, (*ops.shape(q)[:-1], ops.shape(v)[-1]))
        if q_mask is not None:
            seen = ops.expand_dims(ops.cast(q_mask, "bool"), -1)
            out = ops.where(seen, out, ops.zeros_like(out))
        if not return_attention_scores:
            return out
        return out, ops.reshape(made.dropped, (*ops.shape(q)[:-1], ops.shape(k)[-2]))


@keras.saving.register_keras_serializable("attnext")
class Attention(_WithoutScores):
    """`keras.layers.Attention` on attnext's kernels: the same arguments, weights and configuration.

    Parameters
    ----------
    use_scale : bool
        Multiply the score by a learned scalar.
    score_mode : {"dot", "concat"}
        ``q . k``, or ``c * sum(tanh(q + k))`` with a learned scalar c.
    dropout : float
        Share of the weights that are dropped in training.
    seed : int, optional
        Of the dropout.
    **kwargs
        As in `keras.layers.Attention`.

    Notes
    -----
    Called, as Keras's layer, on a list ``[query, value]`` or ``[query, value, key]`` of tensors
    (B, Tq, D), (B, Tv, Dv), (B, Tv, D), with ``mask=[query_mask, value_mask]`` (True: there),
    `use_causal_mask` (aligned at the first query and key) and `return_attention_scores`, which
    forms the weights. A query that no value is visible to gets 0; Keras's layer lets it attend to
    all. The dropout of a seed differs from Keras's.
    """

    def _score(self, q: Any, k: Any) -> tuple[Any, Any, dict[str, Any]]:
        """What goes in as q and k, and the options that make the score of them."""
        factor = None if self.scale is None else ops.cast(self.scale, q.dtype)
        if self.score_mode == "dot":
            return q, k, {"scale": 1.0 if factor is None else ops.reshape(factor, (1,))}
        if factor is not None:
            q, k = q * factor, k * factor
        weight = ops.cast(self.concat_score_weight, q.dtype)
        return q, k, {"score": AdditiveScore(ops.broadcast_to(weight, (q.shape[-1],)))}


@keras.saving.register_keras_serializable("attnext")
class AdditiveAttention(_WithoutScores, keras.layers.AdditiveAttention):  # type: ignore[misc]
    """`keras.layers.AdditiveAttention` on attnext's kernels: ``sum(scale * tanh(q + k))``.

    Parameters
    ----------
    use_scale : bool
        A learned vector, one factor for each feature; otherwise ones.
    dropout : float
        Share of the weights that are dropped in training.
    **kwargs
        As in `keras.layers.AdditiveAttention`.

    Notes
    -----
    The score of Bahdanau et al. (2015). Called as `Attention`.
    """

    def _score(self, q: Any, k: Any) -> tuple[Any, Any, dict[str, Any]]:
        if self.scale is None:
            weight = ops.ones((q.shape[-1],), q.dtype)
        else:
            weight = ops.cast(self.scale, q.dtype)
        return q, k, {"score": AdditiveScore(weight)}


def _as_one_head(x: Any) -> Any:
    """(.., T, D) as (B, T, 1, D)."""
    *_, length, dim = ops.shape(x)
    return ops.reshape(x, (-1, length, 1, dim))


def _mask_of_pairs(mask: Any, batch_axes: tuple[Any, ...]) -> Any:
    """Keras's mask of values (B, Tv), or of pairs (.., Tq, Tv), as one over (B, 1, Tq, Tv)."""
    if mask is None:
        return None
    mask = ops.cast(mask, "bool")
    if len(mask.shape) == 2:
        mask = ops.expand_dims(mask, -2)
    if len(batch_axes) > 1:
        mask = ops.broadcast_to(mask, (*batch_axes, *ops.shape(mask)[-2:]))
    rows, columns = ops.shape(mask)[-2:]
    return ops.reshape(mask, (-1, 1, rows, columns))
