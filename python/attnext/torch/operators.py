"""How does torch get to know an operator? Its schema, its kernel, its shapes, its autocast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..backends import backends

#: The operators live as long as the process: torch.ops.attnext.
LIBRARY = torch.library.Library("attnext", "DEF")

#: Devices a kernel is registered for; of those, `require_tensors` lets pass what can compute.
DEVICES = ("CPU", "CUDA")


def define(
    name: str,
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    keys: Sequence[str] = DEVICES,
) -> Any:
    """Makes ``torch.ops.attnext.<name>`` with `kernel`, whose results look as `fake` says."""
    LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    for key in keys:
        LIBRARY.impl(name, kernel, key)
    torch.library.register_fake(f"attnext::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.attnext, name).default


def cast_in_autocast(operator: Any, num_arrays: int) -> None:
    """Lets autocast choose the dtype of the first `num_arrays` tensors, as for torch's own SDPA."""
    name = operator.name().split("::")[1]

    for device in DEVICES:
        device_type = device.lower()

        def autocast(*arguments: Any, device_type: str = device_type) -> Any:
            dtype = torch.get_autocast_dtype(device_type)
            arrays = (_cast(x, dtype) for x in arguments[:num_arrays])
            with torch.autocast(device_type, enabled=False):
                return operator(*arrays, *arguments[num_arrays:])

        LIBRARY.impl(name, autocast, f"Autocast{device}")


def require_tensors(function: str, **tensors: Any) -> None:
    """Refuses what is no tensor, or lives where no back end of attnext computes."""
    first: torch.Tensor | None = None
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            found = type(tensor).__name__
            raise TypeError(f"{function}: {name} must be a torch.Tensor, found {found}")
        first = tensor if first is None else first
        if tensor.device != first.device:
            raise TypeError(
                f"{function}: {name} must be on the device of {next(iter(tensors))}, "
                f"{first.device}, found {tensor.device}"
            )
    assert first is not None
    if first.device.type not in ("cpu", "meta"):
        _require_backend(function, next(iter(tensors)), first.device)


def _require_backend(function: str, name: str, device: torch.device) -> None:
    reason = "there is no back end for it"
    for backend in backends():
        if backend.name == device.type:
            if backend.available:
                return
            reason = backend.reason
    raise TypeError(
        f"{function}: {name} must be on a device that attnext computes on, found {device}: {reason}"
    )


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    # float64 is left alone: whoever asks for it does so on purpose.
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)
