# What attnext._core offers: the C interface over arrays, options in the order of OPTION_NAMES.
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

OPTION_NAMES: tuple[str, ...]

class ResultTensor:
    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

def forward(
    q: Any,
    k: Any,
    v: Any,
    options: tuple[Any, ...],
    return_lse: bool,
    out: Any,
    dropout_stream: int,
    is_unrounded: bool,
    /,
) -> Any: ...
def backward(
    dout: Any,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    dlse: Any,
    options: tuple[Any, ...],
    dropout_stream: int,
    wanted: int,
    /,
) -> tuple[Any, Any, Any, Any, Any, Any, Any, Any, Any]: ...
def weights(q: Any, k: Any, options: tuple[Any, ...], rows: Any, /) -> Any: ...
def stats(q: Any, k: Any, options: tuple[Any, ...], /) -> tuple[Any, Any, Any, Any]: ...
def merge(
    outs: Sequence[Any], lses: Sequence[Any], layout: str, backend: str | None, /
) -> tuple[Any, Any]: ...
def dropout_mask(
    shape: Sequence[int], dropout: float, seed: int, stream: int, backend: str | None, /
) -> npt.NDArray[np.bool_]: ...
def explain(q: Any, k: Any, v: Any, options: tuple[Any, ...], /) -> str: ...
def backend_status(name: str, /) -> tuple[bool, str]: ...
def version() -> str: ...
def isa() -> str: ...
def isas() -> list[tuple[str, bool]]: ...
def set_num_threads(count: int, /) -> None: ...
def get_num_threads() -> int: ...
def set_float32_precision(precision: int, /) -> None: ...
def get_float32_precision() -> int: ...
