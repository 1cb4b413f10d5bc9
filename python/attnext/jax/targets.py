"""How does a traced program reach the kernels? By XLA's foreign functions, or by a callback."""

from __future__ import annotations

import ctypes
import functools
import os
import warnings
from collections.abc import Mapping
from typing import Any

import jax

from attnext import _core

PASSES = ("forward", "backward", "weights", "stats")

Arrays = Mapping[str, Any]


@functools.cache
def has_foreign_functions() -> bool:
    """Whether XLA calls the kernels itself; where it cannot, a warning says so, once."""
    try:
        jax.local_devices(backend="cpu")  # before there are any, JAX does not say what it refuses
        library = ctypes.CDLL(_library_path())
        for name in PASSES:
            handler = jax.ffi.pycapsule(getattr(library, f"attnext_jax_{name}"))
            jax.ffi.register_ffi_target(f"attnext_{name}", handler, platform="cpu")
    except Exception as reason:  # the loader and jaxlib refuse in ways of their own
        warnings.warn(
            "attnext.jax calls the kernels through jax.pure_callback, which is slower: this build "
            f"has no foreign functions for this version of JAX ({reason}). Build attnext where "
            "jaxlib is installed, or with ATTNEXT_JAX=pip.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def _library_path() -> str:
    # An editable install leaves the Python files elsewhere: what was built lies by the extension.
    directory = os.path.join(os.path.dirname(os.path.abspath(_core.__file__)), "lib")
    return os.path.join(directory, "libattnext_jax.so")


def call(
    name: str, attributes: Mapping[str, Any], inputs: Arrays, results: Mapping[str, Any]
) -> dict[str, Any]:
    """Runs a pass over `inputs`; `results` says the shape and dtype of each by name."""
    inputs = {"q": inputs["q"], **inputs}  # its axes tell the targets which are vmapped
    kind = _manual_kind(inputs["q"])
    shapes = [jax.ShapeDtypeStruct(shape, dtype, **kind) for shape, dtype in results.values()]
    if has_foreign_functions():
        run = jax.ffi.ffi_call(f"attnext_{name}", shapes, vmap_method="expand_dims")
        names = {"inputs": " ".join(inputs), "results": " ".join(results)}
        made = run(*inputs.values(), **names, **attributes)
    else:
        from .callback import Callback

        callback = Callback(name, tuple(attributes.items()), tuple(inputs), tuple(results))
        made = jax.pure_callback(callback, shapes, *inputs.values(), vmap_method="expand_dims")
        # A callback's results count as the same on all devices, whatever they are declared as.
        made = [_differ(x, tuple(_varying_axes(inputs["q"]) - _varying_axes(x))) for x in made]
    return dict(zip(results, made, strict=True))


def spread(arrays: Arrays) -> dict[str, Any]:
    """Inside `jax.shard_map`, lets all arrays differ between the devices that any differs between.

    The gradient of an array that all devices share is then summed over them.
    """
    varying = {name: _varying_axes(x) for name, x in arrays.items()}
    every = frozenset[Any]().union(*varying.values())
    return {name: _differ(x, tuple(every - varying[name])) for name, x in arrays.items()}


# JAX calls the axes along which a value differs `vma`, since 0.10 a part of `manual_axis_type`.


def _varying_axes(x: Any) -> frozenset[Any]:
    kind = jax.typeof(x)
    return getattr(
        getattr(kind, "manual_axis_type", None), "varying", getattr(kind, "vma", frozenset())
    )


def _manual_kind(x: Any) -> dict[str, Any]:
    """What a result that differs like x is declared with."""
    kind = jax.typeof(x)
    if not _varying_axes(x):
        return {}
    if not hasattr(kind, "manual_axis_type"):
        return {"vma": kind.vma}
    everywhere = jax.sharding.NamedSharding(kind.sharding.mesh, jax.sharding.PartitionSpec())
    return {"manual_axis_type": kind.manual_axis_type, "sharding": everywhere}


def _differ(x: Any, axes: tuple[Any, ...]) -> Any:
    if not axes:
        return x
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, axes, to="varying")
    return jax.lax.pvary(x, axes)
