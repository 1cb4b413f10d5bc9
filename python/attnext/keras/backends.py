"""Which attnext computes a layer? The one for the library that Keras runs on."""

from __future__ import annotations

from typing import Any

import keras


def attention(q: Any, k: Any, v: Any, **options: Any) -> Any:
    """`attnext.attention` of tensors of Keras's back end, differentiable where that is."""
    return _library().attention(q, k, v, **options)


def attention_weights(q: Any, k: Any, **options: Any) -> Any:
    """`attnext.attention_weights` likewise."""
    return _library().attention_weights(q, k, **options)


def draw_seed(generator: Any) -> Any:
    """The next seed of a `keras.random.SeedGenerator`, as the option `seed` takes it."""
    words = generator.next()
    if keras.backend.backend() == "jax":
        import jax

        # The words are traced, and may be those of any state: a key makes one seed of them.
        return jax.random.wrap_key_data(jax.numpy.asarray(words, "uint32"), impl="threefry2x32")
    if keras.backend.backend() == "tensorflow":
        return words
    low, high = (int(word) & 0xFFFFFFFF for word in keras.ops.convert_to_numpy(words))
    return low | high << 32


def can_be_compiled() -> bool:
    """Whether XLA may compile a layer whole, as Keras asks: under TensorFlow attnext is Python."""
    return bool(keras.backend.backend() != "tensorflow")


def _library() -> Any:
    name = keras.backend.backend()
    if name == "jax":
        import attnext.jax

        return attnext.jax
    if name == "torch":
        import attnext.torch

        return attnext.torch
    if name == "tensorflow":
        from . import tensorflow

        return tensorflow
    if name == "numpy":
        import attnext

        return attnext
    raise NotImplementedError(
        f"attnext.keras: Keras's back end must be jax, torch, tensorflow or numpy, found {name}"
    )
