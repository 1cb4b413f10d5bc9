"""How does TensorFlow call attnext? As a NumPy function with its own gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import attnext
from attnext.attention import AdditiveScore

#: Options that are tensors, and of these those that have a gradient.
TENSORS = ("mask", "scale", "weight", "seed")
LEARNED = ("scale", "weight")

Arrays = dict[str, Any]
Pass = Callable[[Arrays, Arrays], Any]


def attention(q: Any, k: Any, v: Any, **options: Any) -> Any:
    """`attnext.attention` of tensors, layout bshd; differentiable once, not compiled by XLA."""
    out = _differentiable(_run_forward, _run_backward, {"q": q, "k": k, "v": v}, options)
    out.set_shape([*q.shape[:-1], v.shape[-1]])
    return out


def attention_weights(q: Any, k: Any, **options: Any) -> Any:
    """`attnext.attention_weights` likewise."""
    p = _differentiable(_run_weights, _run_weights_backward, {"q": q, "k": k}, options)
    p.set_shape([q.shape[0], q.shape[2], q.shape[1], k.shape[1]])
    return p


def _differentiable(forward: Pass, backward: Pass, tensors: Arrays, options: Arrays) -> Any:
    """A tensor of q's dtype from `forward`; `backward` gives the gradients of what has one."""
    score = options.get("score")
    if isinstance(score, AdditiveScore):
        options = {**options, "weight": score.weight, "score": "additive"}
    given = {name: options[name] for name in TENSORS if tf.is_tensor(options.get(name))}
    plain = {name: x for name, x in options.items() if name not in given}
    tensors = {**tensors, **given}
    names = [*tensors]
    learned = [name for name in names if name in ("q", "k", "v", *LEARNED)]

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(*arrays: Any) -> Any:
        result = tf.numpy_function(_by_name(forward, names, plain), arrays, arrays[0].dtype)

        def gradient(dresult: Any) -> list[Any]:
            function = _by_name(backward, [*names, "dresult"], plain)
            dtypes = [tensors[name].dtype for name in learned]
            made = iter(tf.numpy_function(function, (*arrays, dresult), dtypes))
            return [
                _shaped(next(made), x) if name in learned else None for name, x in tensors.items()
            ]

        return result, gradient

    return run(*tensors.values())


def _by_name(function: Pass, names: list[str], plain: Arrays) -> Callable[..., Any]:
    """`function` of arrays in the order of `names`, and the options that are no tensors."""

    def call(*arrays: Any) -> Any:
        named: Arrays = {}
        named.update(zip(names, arrays, strict=True))
        return function(named, plain)

    return call


def _shaped(grad: Any, like: Any) -> Any:
    grad.set_shape(like.shape)
    return grad


def _options(arrays: Arrays, plain: Arrays) -> Arrays:
    options = dict(plain)
    for name in ("mask", "scale"):
        if name in arrays:
            options[name] = arrays[name]
    if "weight" in arrays:
        options["score"] = AdditiveScore(arrays["weight"])
    if "seed" in arrays:
        low, high = (int(word) & 0xFFFFFFFF for word in arrays["seed"])
        options["seed"] = low | high << 32
    return options


def _run_forward(arrays: Arrays, plain: Arrays) -> Any:
    return attnext.attention(arrays["q"], arrays["k"], arrays["v"], **_options(arrays, plain))


def _run_backward(arrays: Arrays, plain: Arrays) -> list[Any]:
    q, k, v = arrays["q"], arrays["k"], arrays["v"]
    _, vjp = attnext.attention_vjp(q, k, v, **_options(arrays, plain))
    return _in_order(vjp(np.ascontiguousarray(arrays["dresult"])), arrays)


def _run_weights(arrays: Arrays, plain: Arrays) -> Any:
    return attnext.attention_weights(arrays["q"], arrays["k"], **_options(arrays, plain))


def _run_weights_backward(arrays: Arrays, plain: Arrays) -> list[Any]:
    """Weights are what attention makes of an identity matrix in the place of v."""
    q, k = arrays["q"], arrays["k"]
    length = k.shape[1]
    eye = np.broadcast_to(np.eye(length, dtype=k.dtype)[:, None], (*k.shape[:3], length))
    _, vjp = attnext.attention_vjp(q, k, eye, **_options(arrays, plain))
    return _in_order(vjp(np.ascontiguousarray(arrays["dresult"].swapaxes(1, 2))), arrays)


def _in_order(grads: attnext.AttentionGrads, arrays: Arrays) -> list[Any]:
    """The gradients of those arrays that have one."""
    found = {
        "q": grads.dq, "k": grads.dk, "v": grads.dv, "scale": grads.dscale, "weight": grads.dweight,
    }  # fmt: skip
    return [found[name] for name in arrays if name in found]
