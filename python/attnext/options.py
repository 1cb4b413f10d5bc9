"""How do the other functions take attention's options? By the names and defaults stated there."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from . import _core
from .attention import attention
from .errors import REFUSALS, reword

Function = TypeVar("Function", bound=Callable[..., Any])
Options = tuple[Any, ...]

_KEYWORD_DEFAULTS: dict[str, Any] = attention.__kwdefaults__ or {}

#: The options in the order that `_core` takes them, with their defaults.
DEFAULTS: dict[str, Any] = {name: _KEYWORD_DEFAULTS[name] for name in _core.OPTION_NAMES}

KERNEL_BACKENDS = ("cpu", "cuda", "cuda-emulated")

_OPTION_PARAMETERS = [inspect.signature(attention).parameters[name] for name in DEFAULTS]


def take_options(function: Function) -> Function:
    """Show attention's options in the signature of a function that takes them as ``**options``.

    Its errors begin with its name, also where they come from the calls it is made of.
    """
    own = inspect.signature(function)
    parameters = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]

    @functools.wraps(function)
    def named(*arguments: Any, **keywords: Any) -> Any:
        try:  # no context manager: entering one costs every call a microsecond
            return function(*arguments, **keywords)
        except REFUSALS as error:
            reword(error, function.__name__, {})
            raise

    named.__signature__ = own.replace(parameters=[*parameters, *_OPTION_PARAMETERS])  # type: ignore[attr-defined]
    return named  # type: ignore[return-value]


def pack_options(function: str, options: dict[str, Any]) -> tuple[Options, bool]:
    """The option values in `_core`'s order, and whether the reference is asked for."""
    complete = {**DEFAULTS, **options}
    if len(complete) != len(DEFAULTS):
        unknown = next(name for name in options if name not in DEFAULTS)
        raise TypeError(f"{function}() got an unexpected keyword argument {unknown!r}")
    reference = is_reference(complete["backend"])
    if reference:
        complete["backend"] = None
    return tuple(complete.values()), reference


def is_reference(backend: str | None) -> bool:
    """Whether `backend` is the reference; otherwise it is one that the library may have."""
    if backend is None or (isinstance(backend, str) and backend in KERNEL_BACKENDS):
        return False
    if not isinstance(backend, str):
        raise TypeError(
            "attention: backend must be None, 'cpu', 'cuda' or 'reference', "
            f"found {type(backend).__name__}"
        )
    if backend != "reference":
        raise ValueError(
            f"attention: backend must be None, 'cpu', 'cuda' or 'reference', found {backend!r}"
        )
    return True


def kernel_backend(function: str, backend: str | None) -> str | None:
    """`backend` of a function that the reference has no version of."""
    if backend is not None and backend not in KERNEL_BACKENDS:
        raise ValueError(
            f"{function}: backend must be None, 'cpu', 'cuda' or 'cuda-emulated', found {backend!r}"
        )
    return backend
