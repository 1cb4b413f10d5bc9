"""How are results over disjoint keys joined in JAX? By the same sums, in JAX's own operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from attnext.arguments import items

from .operators import accumulator
from .problem import as_array

if TYPE_CHECKING:
    from attnext.attention import Layout


def merge_attention(
    outs: Sequence[Any], lses: Sequence[Any], *, layout: Layout = "bhsd"
) -> tuple[Any, Any]:
    """`attnext.merge_attention` for JAX: joins results over disjoint sets of keys.

    Parameters
    ----------
    outs, lses : sequence of arrays
        What `attention` returned for each set with ``return_lse=True``.
    layout : {"bhsd", "bshd", "thd"}
        Of the outs.

    Returns
    -------
    out, lse : array
        ``lse = log(sum_i exp(lse_i))`` and ``out = sum_i out_i exp(lse_i - lse)``, in the types of
        ``outs[0]`` and ``lses[0]``; differentiable in all of them, in any mode.

    Raises
    ------
    ValueError, TypeError
        Nothing to merge, or arrays that do not belong together.

    Notes
    -----
    A set in which a row had no visible key (lse = -inf) contributes nothing to it, nor to a
    gradient. Give sinks to one set only.
    """
    outs, lses = _read(
        items("merge_attention", "outs", outs), items("merge_attention", "lses", lses)
    )
    if layout not in ("bhsd", "bshd", "thd"):
        raise ValueError(
            f"merge_attention: layout must be 'bhsd', 'bshd' or 'thd', found {layout!r}"
        )
    wide = accumulator(outs[0].dtype)
    stacked = jnp.stack(lses).astype(wide)
    top = jax.lax.stop_gradient(stacked.max(0))
    shares = jnp.exp(stacked - jnp.where(jnp.isneginf(top), 0, top))
    total = shares.sum(0)
    is_empty = total == 0
    known = jnp.where(is_empty, 1, total)  # whose logarithm has a gradient
    lse = jnp.where(is_empty, -jnp.inf, top + jnp.log(known))
    shares = shares / known
    if layout != "bhsd" and outs[0].ndim > 2:
        shares = shares.swapaxes(-1, -2)
    out = sum(out.astype(wide) * share[..., None] for out, share in zip(outs, shares))
    return jnp.asarray(out).astype(outs[0].dtype), lse.astype(lses[0].dtype)


def _read(outs: list[Any], lses: list[Any]) -> tuple[list[Any], list[Any]]:
    name = "merge_attention"
    if not outs or len(outs) != len(lses):
        raise ValueError(
            f"{name}: outs and lses must be as many, at least one, found {len(outs)} and "
            f"{len(lses)}"
        )
    outs = [as_array(name, "outs", x) for x in outs]
    lses = [as_array(name, "lses", x) for x in lses]
    for argument, arrays in (("outs", outs), ("lses", lses)):
        for x in arrays:
            if x.shape != arrays[0].shape or x.dtype != arrays[0].dtype:
                raise ValueError(
                    f"{name}: {argument} must share shape and dtype {arrays[0].shape} "
                    f"{arrays[0].dtype}, found {x.shape} {x.dtype}"
                )
    if sorted(outs[0].shape[:-1]) != sorted(lses[0].shape):
        raise ValueError(
            f"{name}: lses must have the axes of outs up to the last, {outs[0].shape[:-1]}, "
            f"found {lses[0].shape}"
        )
    return outs, lses
