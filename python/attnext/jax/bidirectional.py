"""How do queries and keys attend each other in JAX? By a call of attention for each direction."""

from __future__ import annotations

from typing import Any

from attnext.arguments import flag
from attnext.bidirectional import (
    COLUMN_NAMES,
    COLUMNS,
    ROW_NAMES,
    ROWS,
    _check_arrays,
    _pack,
    _repeat_heads,
    _transpose,
)
from attnext.options import DEFAULTS, take_options

from .attention import named_options
from .operators import attend
from .problem import as_array, read_problem


@take_options
def bidirectional_attention(
    q: Any, k: Any, v_q: Any, v_k: Any, *, return_lse: bool = False, **options: Any
) -> tuple[Any, ...]:
    """`attnext.bidirectional_attention` for JAX: differentiable, under any transform.

    Parameters
    ----------
    q, k, v_q, v_k : array
        Of JAX or NumPy, with the axes of `attnext.bidirectional_attention`.
    return_lse : bool
        Also return the logarithm of each row's and each column's sum.
    **options
        See `attention`; `block_table` is not supported.

    Returns
    -------
    out_q, out_k : array (B, Hq, Sq, Dv), (B, Hq, Sk, Dv)
        ``softmax(s, over the keys) @ v_k`` and ``softmax(s, over the queries).T @ v_q``.
    lse_q, lse_k : array (B, Hq, Sq), (B, Hq, Sk)
        Only with `return_lse`.

    Raises
    ------
    ValueError, TypeError, NotImplementedError, RuntimeError
        As in `attention`.

    Notes
    -----
    The co-attention of Lu et al. (2016).

    Examples
    --------
    >>> import jax
    >>> import attnext.jax
    >>> words, regions = jax.numpy.split(jax.random.normal(jax.random.key(0), (29, 64)), [20])
    >>> outs = attnext.jax.bidirectional_attention(words, regions, words, regions)
    >>> outs[0].shape, outs[1].shape
    ((20, 64), (9, 64))
    """
    name = "bidirectional_attention"
    is_lse_wanted = flag(name, "return_lse", return_lse)
    _pack(name, options)  # refuses what no direction has
    rows = named_options(name, options)
    arrays = {"q": q, "k": k, "v_q": v_q, "v_k": v_k}
    q, k, v_q, v_k = (as_array(name, argument, x) for argument, x in arrays.items())
    _check_arrays(name, q, k, v_q, v_k)
    along_rows = read_problem(
        name, {"q": q, "k": k, "v": v_k}, rows, dropout_stream=ROWS, names=ROW_NAMES
    )
    values = tuple(rows.values())
    along_columns = read_problem(
        name,
        {"q": _repeat_heads(k, q, values), "k": q, "v": v_q},
        dict(zip(DEFAULTS, _transpose(values), strict=True)),
        dropout_stream=COLUMNS,
        names=COLUMN_NAMES,
    )
    (out_q, lse_q), (out_k, lse_k) = (
        map(problem.in_callers_axes, attend(problem.static, problem.arrays))
        for problem in (along_rows, along_columns)
    )
    return (out_q, out_k, lse_q, lse_k) if is_lse_wanted else (out_q, out_k)
