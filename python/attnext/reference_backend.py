"""How does backend="reference" run? By attnext.reference, its results cast to the inputs' types."""

from __future__ import annotations

from typing import Any

from . import _core, reference
from .arguments import flag
from .attention import AdditiveScore
from .libraries import from_numpy, to_numpy
from .options import DEFAULTS, Options


def reference_options(options: Options) -> dict[str, Any]:
    """The option values by name, arrays as NumPy's."""
    named = dict(zip(DEFAULTS, map(to_numpy, options), strict=True))
    del named["backend"]
    if not isinstance(named["score"], str):
        weight, bias = named["score"].weight, named["score"].bias
        named["score"] = AdditiveScore(to_numpy(weight), to_numpy(bias))
    return named


def run_forward(q: Any, k: Any, v: Any, options: Options, return_lse: bool, out: Any) -> Any:
    """`attention` by its definition."""
    is_lse_wanted = flag("attention", "return_lse", return_lse)
    # The reference trusts its inputs: these calls check them. Filling out is the way to check it.
    if out is None:
        _core.explain(q, k, v, options)
    else:
        _core.forward(q, k, v, options, False, out, 0, False)
    arrays = (to_numpy(x) for x in (q, k, v))
    result, lse = reference.attention(*arrays, return_lse=True, **reference_options(options))
    result = from_numpy(result, q if out is None else out)
    if out is not None:
        out[...] = result
        result = out
    return (result, from_numpy(lse, q, is_accumulator=True)) if is_lse_wanted else result


def run_backward(arrays: tuple[Any, ...], dlse: Any, options: Options) -> tuple[Any, ...]:
    """`attention_backward` by its definition; `arrays` are dout, q, k, v, out, lse."""
    _, q, k, v, _, _ = arrays
    _core.explain(q, k, v, options)
    grads = reference.attention_backward(
        *map(to_numpy, arrays), dlse=to_numpy(dlse), **reference_options(options)
    )
    return cast_gradients(grads, (q, k, v), options)


def cast_gradients(
    grads: tuple[Any, ...], inputs: tuple[Any, ...], options: Options
) -> tuple[Any, ...]:
    """Each gradient in the type of what it belongs to: `inputs`, then the options that have one."""
    named = dict(zip(DEFAULTS, options, strict=True))
    score = named["score"]
    weight, score_bias = (None, None) if isinstance(score, str) else (score.weight, score.bias)
    owners = (
        *inputs, named["bias"], named["alibi_slopes"], named["sinks"], named["scale"],
        weight, score_bias,
    )  # fmt: skip
    return tuple(
        None if grad is None or owner is None else from_numpy(grad, owner)
        for grad, owner in zip(grads, owners, strict=True)
    )


def run_weights(q: Any, k: Any, rows: Any, options: Options) -> Any:
    """`attention_weights` by its definition."""
    _core.explain(q, k, k, options)
    named = reference_options(options)
    p = reference.attention_weights(to_numpy(q), to_numpy(k), rows=to_numpy(rows), **named)
    return from_numpy(p, q)


def run_stats(q: Any, k: Any, options: Options) -> tuple[Any, ...]:
    """`attention_stats` by its definition."""
    _core.explain(q, k, k, options)
    stats = reference.attention_stats(to_numpy(q), to_numpy(k), **reference_options(options))
    return tuple(from_numpy(field, q, is_accumulator=True) for field in stats)


def run_bidirectional(
    arrays: tuple[Any, ...], return_lse: bool, options: Options
) -> tuple[Any, ...]:
    """`bidirectional_attention` by its definition; `arrays` are q, k, v_q, v_k."""
    q, k, _, v_k = arrays
    _core.explain(q, k, v_k, options)
    out_q, out_k, *lses = reference.bidirectional_attention(
        *map(to_numpy, arrays), return_lse=True, **reference_options(options)
    )
    outs = from_numpy(out_q, q), from_numpy(out_k, q)
    return (*outs, *(from_numpy(x, q, is_accumulator=True) for x in lses)) if return_lse else outs


def run_bidirectional_backward(
    arrays: tuple[Any, ...], dlse_q: Any, dlse_k: Any, options: Options
) -> tuple[Any, ...]:
    """`bidirectional_attention_backward` by its definition; `arrays`: its positional arguments."""
    q, k, v_q, v_k = arrays[2:6]
    _core.explain(q, k, v_k, options)
    grads = reference.bidirectional_attention_backward(
        *map(to_numpy, arrays),
        dlse_q=to_numpy(dlse_q),
        dlse_k=to_numpy(dlse_k),
        **reference_options(options),
    )
    return cast_gradients(grads, (q, k, v_q, v_k), options)
