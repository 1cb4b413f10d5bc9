"""attnext's attention for traced arrays: its signature, options and results are attnext's own."""

from __future__ import annotations

from typing import Any

from attnext.arguments import flag
from attnext.options import DEFAULTS, pack_options, take_options

from .operators import attend
from .problem import read_problem


@take_options
def attention(
    q: Any, k: Any, v: Any, *, return_lse: bool = False, out: None = None, **options: Any
) -> Any:
    """`attnext.attention` for JAX: the same options, conventions and results, under any transform.

    Parameters
    ----------
    q, k, v : array
        Of JAX or NumPy; float64 (where JAX has it enabled), float32, float16 or bfloat16.
    return_lse : bool
        Also return the logarithm of each row's sum, which has a gradient too.
    out : None
        JAX's arrays never change: there is nowhere to put a result.
    **options
        See `attnext.attention`. Arrays may be traced and have gradients: bias, alibi_slopes, sinks,
        scale and the arrays of an `AdditiveScore`. Beyond attnext's, `scale` may be a scalar
        array, with a gradient, and `seed` an integer scalar array or a key of `jax.random`. The
        rest is built into the compiled program: score, causal, window, softcap, dropout, layout and
        an integer q_offset. `backend` may be None or "cpu".

    Returns
    -------
    out : array (B, Hq, Sq, Dv)
        In q's dtype, rank and layout.
    lse : array (B, Hq, Sq)
        Only with `return_lse`; float32 (float64 for float64).

    Raises
    ------
    ValueError, TypeError, NotImplementedError, RuntimeError
        As in `attnext.attention`, when the call is traced. What only the values of traced arrays
        can show, such as a length beyond the keys, is refused with the same message when the
        program runs, by JAX's own `JaxRuntimeError` or ValueError.

    Notes
    -----
    Under `jax.vmap` the examples run as one batch where that is the same computation, and one after
    another elsewhere: packed or paged sequences, dropout (each example gets the mask it gets
    alone), a batch within the example, and gradients of what a batch shares. Under `jax.jit`,
    sharded inputs are gathered first: use `jax.shard_map` to keep the work where the data is.

    Examples
    --------
    >>> import jax
    >>> import attnext.jax
    >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 8, 100, 64))
    >>> loss = lambda q: attnext.jax.attention(q, k, v, causal=True).sum()
    >>> jax.jit(jax.grad(loss))(q).shape
    (2, 8, 100, 64)
    """
    name = "attention"
    is_lse_wanted = flag(name, "return_lse", return_lse)
    if out is not None:
        raise TypeError(f"{name}: out must be None, as JAX's arrays never change, found an array")
    problem = read_problem(name, {"q": q, "k": k, "v": v}, named_options(name, options))
    result, lse = (problem.in_callers_axes(x) for x in attend(problem.static, problem.arrays))
    return (result, lse) if is_lse_wanted else result


def named_options(function: str, options: dict[str, Any]) -> dict[str, Any]:
    """All of attention's options by name."""
    values, is_reference = pack_options(function, options)
    if is_reference:
        raise NotImplementedError(
            f"{function}: backend must be None or 'cpu' in attnext.jax, found 'reference'"
        )
    return dict(zip(DEFAULTS, values, strict=True))
