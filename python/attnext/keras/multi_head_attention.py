"""`keras.layers.MultiHeadAttention`, without the matrix of scores or masks of positions."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import keras
from keras import ops

from . import backends
from .attend import attend
from .axes import Axes


class Visible(NamedTuple):
    """Which pairs may attend: a mask, and what follows from the positions alone."""

    mask: Any = None
    is_causal: bool = False
    window: tuple[int, int] | None = None


@keras.saving.register_keras_serializable("attnext")
class MultiHeadAttention(keras.layers.MultiHeadAttention):  # type: ignore[misc]
    """`keras.layers.MultiHeadAttention` on attnext's kernels: the same arguments and weights.

    Parameters
    ----------
    num_heads, key_dim, value_dim, dropout, use_bias, output_shape, attention_axes, \
    sliding_window, use_gate, seed, **kwargs
        As in `keras.layers.MultiHeadAttention`.

    Notes
    -----
    Called as Keras's layer, with its masks (True: may attend), `use_causal_mask` (aligned at the
    first query and key) and `return_attention_scores`, which forms the weights. Causal masks and
    sliding windows are never formed where there is one attention axis; what they hide is not
    computed. A query without any visible key gets 0 from its heads; Keras's layer gives it the mean
    of all values. The dropout of a seed differs from Keras's.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.supports_jit = backends.can_be_compiled()

    def _compute_attention_mask(
        self,
        query: Any,
        value: Any,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        use_causal_mask: bool = False,
    ) -> Any:
        """Keras's mask; here without its causal part and its window, which kernels know better."""
        is_ours = type(self)._compute_attention is MultiHeadAttention._compute_attention
        if not is_ours or len(query.shape) != 3:
            return super()._compute_attention_mask(
                query, value, query_mask, value_mask, key_mask, attention_mask, use_causal_mask
            )
        masks = [
            ops.expand_dims(ops.cast(mask, "bool"), axis)
            for mask, axis in ((query_mask, -1), (value_mask, -2), (key_mask, -2))
            if mask is not None
        ]
        if attention_mask is not None:
            masks.append(ops.cast(attention_mask, "bool"))
        mask = functools.reduce(ops.logical_and, masks) if masks else None
        reach = None if self._sliding_window is None else self._sliding_window - 1
        window = None if reach is None else (reach, reach)
        return Visible(mask, bool(use_causal_mask), window)

    def _compute_attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> tuple[Any, Any]:
        """Attention of the projected (B, T, N, H), or with more axes before N."""
        if self._flash_attention and return_attention_scores:
            return super()._compute_attention(  # type: ignore[no-any-return]
                query, key, value, return_attention_scores=True
            )  # refuses
        query, key, value = (ops.convert_to_tensor(x) for x in (query, key, value))
        visible = attention_mask
        if not isinstance(visible, Visible):
            visible = Visible(attention_mask, is_causal=use_causal_mask)
        axes = Axes(self._attention_axes, len(query.shape))
        if use_causal_mask and not axes.are_plain:
            causal = self._compute_causal_mask(query, value)
            mask = causal if visible.mask is None else ops.logical_and(visible.mask, causal)
            visible = Visible(mask)
        made = attend(
            *(axes.flatten(x) for x in (query, key, value)),
            are_weights_wanted=return_attention_scores,
            dropout=self._dropout if training else 0,
            generator=self._dropout_layer.seed_generator if self._dropout > 0 else None,
            mask=axes.flatten_mask(visible.mask, query, key, self._num_heads),
            causal="top_left" if visible.is_causal else False,
            window=visible.window,
            scale=self._inverse_sqrt_key_dim,
        )
        out = axes.restore(made.out, query)
        if not return_attention_scores:
            return out, None
        return out, axes.restore_weights(made.weights, query, key)
