"""How does an operator get its gradient, also inside torch.func? As itself, and as a Function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils._pytree import tree_flatten, tree_unflatten

from .vmap import Rule, one_by_one


def differentiable(
    operator: Any,
    backward: Callable[..., Any],
    setup_context: Callable[..., None],
    rule: Rule | None = None,
) -> Callable[..., Any]:
    """Registers a gradient and a rule for vmap; returns what to call the operator by."""
    rule = one_by_one(operator) if rule is None else rule
    torch.library.register_autograd(operator, backward, setup_context=setup_context)
    torch.library.register_vmap(operator, rule)
    function = _as_function(operator, backward, setup_context, rule)

    def call(*arguments: Any) -> Any:
        # torch.func differentiates no operator that is registered, only Functions, and compiles
        # no such Function.
        is_transformed = torch._C._are_functorch_transforms_active()
        if is_transformed and not torch.compiler.is_compiling():
            leaves, spec = tree_flatten(arguments)
            return function.apply(*leaves, spec)
        if forward_ad._current_level >= 0:
            _refuse_tangents(operator, arguments)
        return operator(*arguments)

    return call


def refused(function: str, what: str) -> Callable[..., Any]:
    """The gradient of what has none."""

    def refuse(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(f"{function}: {what}")

    return refuse


def refused_twice(function: str) -> Callable[..., Any]:
    """The gradient of a gradient."""
    return refused(
        function,
        "the gradient of a gradient (backward of a result of create_graph=True) is not there; "
        f"{function} can be differentiated once",
    )


def save_nothing(ctx: Any, inputs: Any, output: Any) -> None:
    """For gradients that need nothing, or are refused."""


def _as_function(
    operator: Any, backward: Callable[..., Any], setup: Callable[..., None], rule: Rule
) -> Any:
    """The operator as an autograd.Function of its flattened arguments and how to nest them."""

    def forward(*leaves: Any) -> Any:
        return _as_tuple(operator(*_nested(leaves)))

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        setup(ctx, _nested(inputs), output)

    def flat_backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        found = backward(ctx, *grads)
        return (*tree_flatten(found if isinstance(found, tuple) else (found,))[0], None)

    def vmap(info: Any, in_dims: tuple[Any, ...], *leaves: Any) -> Any:
        dims = tree_unflatten(list(in_dims[:-1]), leaves[-1])
        results, out_dims = rule(info, dims, *_nested(leaves))
        return _as_tuple(results), _as_tuple(out_dims)

    members = {
        "forward": forward, "setup_context": setup_context, "backward": flat_backward,
        "vmap": vmap,
    }  # fmt: skip
    return type(
        operator.name().replace("::", "_"),
        (torch.autograd.Function,),
        {name: staticmethod(member) for name, member in members.items()},
    )


def _refuse_tangents(operator: Any, arguments: tuple[Any, ...]) -> None:
    # Torch would drop them without a word.
    for leaf in tree_flatten(arguments)[0]:
        if isinstance(leaf, torch.Tensor) and forward_ad.unpack_dual(leaf).tangent is not None:
            name = operator.name().split("::")[1]
            raise NotImplementedError(
                f"{name}: forward-mode derivatives are not there; use backward or torch.func.vjp"
            )


def _nested(leaves: tuple[Any, ...]) -> Any:
    *flat, spec = leaves
    return tree_unflatten(flat, spec)


def _as_tuple(results: Any) -> Any:
    return tuple(results) if isinstance(results, list) else results
