"""How is a sequence summed up in one vector in JAX? By attention with one learned query."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from attnext.errors import speaking_of
from attnext.options import DEFAULTS
from attnext.pooling import _as_attention, _names, _pooled

from .operators import attend
from .problem import as_array, is_array, read_problem


def attention_pool(x: Any, weight: Any, *, values: Any = None, lengths: Any = None) -> Any:
    """`attnext.attention_pool` for JAX: ``softmax(weight . tanh(x))`` over the sequence weighs it.

    Parameters
    ----------
    x : array (B, S, D) or (S, D)
        What the weights are made from: any float dtype.
    weight : array (D,)
        The learned query.
    values : array (B, S, Dv) or (S, Dv), optional
        What is summed; None: x itself.
    lengths : integer array (B,), optional
        How much of each sequence exists; for x (S, D) an integer.

    Returns
    -------
    pooled : array (B, Dv) or (Dv,)
        Differentiable in x, weight and values; 0 for a sequence of length 0.

    Raises
    ------
    ValueError, TypeError
        As in `attention`.

    Notes
    -----
    The word and sentence attention of Yang et al. (2016), once x is projected.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import attnext.jax
    >>> attnext.jax.attention_pool(jnp.ones((2, 5, 3)), jnp.zeros(3), lengths=[5, 2]).shape
    (2, 3)
    """
    name, names = "attention_pool", _names(values)
    x = as_array(name, "x", x)
    values = values if values is None else as_array(name, "values", values)
    if is_array(lengths):
        lengths = jnp.atleast_1d(lengths)
    with speaking_of(name, names):
        q, k, v, options = _as_attention(x, weight, values, lengths)
    problem = read_problem(name, {"q": q, "k": k, "v": v}, {**DEFAULTS, **options}, names=names)
    return _pooled(problem.in_callers_axes(attend(problem.static, problem.arrays)[0]))
