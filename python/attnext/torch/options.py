"""How do attention's options pass through an operator of torch? As tensors and plain scalars."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from ..arguments import integer
from ..attention import AdditiveScore
from ..attention import attention as array_attention
from ..options import DEFAULTS

Function = TypeVar("Function", bound=Callable[..., Any])

#: What every operator takes after its arrays; the fields of `OpOptions`, as torch spells them.
SCHEMA = (
    "Tensor? bias, Tensor? alibi_slopes, Tensor? sinks, Tensor? head_scales, Tensor? weight, "
    "Tensor? score_bias, Tensor? mask, Tensor? q_offset, Tensor? q_lengths, Tensor? kv_lengths, "
    "Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? block_table, Tensor? seed, str score, "
    "float? scale, str causal, SymInt window_left, SymInt window_right, float softcap, "
    "float dropout, str layout, str? backend"
)

#: The options that have a gradient, in the words of a call.
DIFFERENTIABLE = (
    "bias", "alibi_slopes", "sinks", "scale", "AdditiveScore.weight", "AdditiveScore.bias"
)  # fmt: skip
NUM_DIFFERENTIABLE = len(DIFFERENTIABLE)
NUM_TENSORS = 14

_INTEGERS = ("q_offset", "q_lengths", "kv_lengths", "cu_seqlens_q", "cu_seqlens_k", "block_table")
_CAUSAL = {False: "none", True: "bottom_right"}
_SIGNATURE = inspect.signature(array_attention).parameters
_OPTION_PARAMETERS = [_SIGNATURE[name] for name in DEFAULTS]


class OpOptions(NamedTuple):
    """The options in the operators' order: tensors with a gradient, without one, scalars."""

    bias: torch.Tensor | None
    alibi_slopes: torch.Tensor | None
    sinks: torch.Tensor | None
    head_scales: torch.Tensor | None
    weight: torch.Tensor | None
    score_bias: torch.Tensor | None
    mask: torch.Tensor | None
    q_offset: torch.Tensor | None
    q_lengths: torch.Tensor | None
    kv_lengths: torch.Tensor | None
    cu_seqlens_q: torch.Tensor | None
    cu_seqlens_k: torch.Tensor | None
    block_table: torch.Tensor | None
    seed: torch.Tensor | None
    score: str
    scale: float | None
    causal: str
    window_left: int
    window_right: int
    softcap: float
    dropout: float
    layout: str
    backend: str | None


def show_options(function: Function) -> Function:
    """Show attention's options in the signature of a function that takes them as ``**options``."""
    own = inspect.signature(function)
    parameters = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    function.__signature__ = own.replace(parameters=[*parameters, *_OPTION_PARAMETERS])  # type: ignore[attr-defined]
    return function


def encode(function: str, q: torch.Tensor, options: dict[str, Any]) -> OpOptions:
    """The options of a call of `function` as its operator takes them."""
    for name in options:
        if name not in DEFAULTS:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
    o = {**DEFAULTS, **options}
    score, weight, score_bias = _split_score(function, o["score"], q)
    scale, head_scales = _split_scale(function, o["scale"], q, o["layout"])
    left, right = _read_window(function, o["window"])
    tensors = {name: integers(function, name, o[name], q) for name in _INTEGERS}
    return OpOptions(
        bias=_floats(function, "bias", o["bias"], q),
        alibi_slopes=_floats(function, "alibi_slopes", o["alibi_slopes"], q),
        sinks=_floats(function, "sinks", o["sinks"], q),
        head_scales=head_scales,
        weight=weight,
        score_bias=score_bias,
        mask=as_tensor(function, "mask", o["mask"], q),
        **tensors,
        seed=read_seed(function, o["seed"]),
        score=score,
        scale=scale,
        causal=_read_causal(function, o["causal"]),
        window_left=left,
        window_right=right,
        softcap=0.0 if o["softcap"] is None else number(function, "softcap", o["softcap"]),
        dropout=number(function, "dropout", o["dropout"]),
        layout=_text(function, "layout", o["layout"]),
        backend=None if o["backend"] is None else _text(function, "backend", o["backend"]),
    )


def decode(given: tuple[Any, ...]) -> dict[str, Any]:
    """The keywords for a function of attnext, from what an operator of torch was given."""
    o = OpOptions(*map(detached, given))
    is_open = o.window_left < 0 and o.window_right < 0
    return {
        "score": o.score if o.weight is None else AdditiveScore(o.weight, o.score_bias),
        "scale": o.scale if o.head_scales is None else o.head_scales,
        "causal": False if o.causal == "none" else o.causal,
        "window": None if is_open else (o.window_left, o.window_right),
        "softcap": o.softcap,
        "dropout": o.dropout,
        "seed": None if o.seed is None else int(o.seed) % 2**64,
        "layout": o.layout,
        "backend": o.backend,
        **{name: getattr(o, name) for name in ("mask", "bias", "alibi_slopes", "sinks")},
        **{name: getattr(o, name) for name in _INTEGERS},
    }


def differentiable(options: OpOptions) -> dict[str, Any]:
    """The options that have a gradient, by name."""
    return dict(zip(DIFFERENTIABLE, options))


def detached(value: Any) -> Any:
    """A tensor without its gradient, which the operator takes care of; all else as it is."""
    is_tracked = isinstance(value, torch.Tensor) and value.requires_grad
    return value.detach() if is_tracked else value


def draw_seed() -> torch.Tensor:
    """A seed from torch's own generator, also inside a compiled graph."""
    return torch.randint(2**63 - 1, (), dtype=torch.int64, device="cpu")


def num_heads(q: torch.Tensor, layout: str) -> int:
    """Of q; 1 for rank 2."""
    return 1 if q.dim() == 2 else q.shape[-3 if layout == "bhsd" else -2]


def _split_score(
    function: str, score: Any, q: torch.Tensor
) -> tuple[str, torch.Tensor | None, torch.Tensor | None]:
    if isinstance(score, str):
        return score, None, None
    if not isinstance(score, AdditiveScore):
        raise TypeError(
            f"{function}: score must be 'dot', 'cosine', 'neg_l2', 'neg_sq_l2' or an "
            f"AdditiveScore, found {type(score).__name__}"
        )
    weight = _floats(function, "AdditiveScore.weight", score.weight, q)
    if weight is None:
        raise TypeError(f"{function}: AdditiveScore.weight must be a tensor, found None")
    return "additive", weight, _floats(function, "AdditiveScore.bias", score.bias, q)


def _split_scale(
    function: str, scale: Any, q: torch.Tensor, layout: str
) -> tuple[float | None, torch.Tensor | None]:
    """A number, or a factor for each head; one tensor for all heads is given to each of them."""
    if scale is None:
        return None, None
    if isinstance(scale, int | float):
        return number(function, "scale", scale), None
    scales = _floats(function, "scale", scale, q)
    assert scales is not None
    return None, scales.expand(num_heads(q, layout)) if scales.dim() == 0 else scales


def _read_window(function: str, window: Any) -> tuple[int, int]:
    if window is None:
        return -1, -1
    if not isinstance(window, tuple | list) or len(window) != 2:
        raise ValueError(f"{function}: window must be a pair (left, right), found {window!r}")
    left, right = (-1 if side is None else side for side in window)
    left, right = (_integer(function, "each side of window", side) for side in (left, right))
    for side in (left, right):
        if side < -1:
            raise ValueError(
                f"{function}: each side of window must be at least 0, or -1 for open, found {side}"
            )
    return left, right


def _read_causal(function: str, causal: Any) -> str:
    if isinstance(causal, bool | np.bool_):
        return _CAUSAL[bool(causal)]
    if causal in ("bottom_right", "top_left"):
        return str(causal)
    raise ValueError(
        f"{function}: causal must be False, True, 'bottom_right' or 'top_left', found {causal!r}"
    )


def read_seed(function: str, seed: Any) -> torch.Tensor | None:
    """A tensor of one integer, so that a compiled graph can draw it."""
    if seed is None:
        return None
    if isinstance(seed, torch.Tensor):
        if seed.dim() != 0 or seed.dtype != torch.int64:
            found = f"{seed.dtype} of shape {tuple(seed.shape)}"
            raise TypeError(f"{function}: seed must be an int or a 0-d int64 tensor, found {found}")
        return seed
    seed = _integer(function, "seed", seed)
    if not 0 <= seed < 2**64:
        raise ValueError(f"{function}: seed must be in [0, 2**64), found {seed}")
    bits = seed if seed < 2**63 else seed - 2**64
    return torch.full((), bits, dtype=torch.int64, device="cpu")


def _integer(function: str, name: str, value: Any) -> int:
    # Plain ones first: a compiled graph cannot look into the other function.
    return value if isinstance(value, int) else integer(function, name, value)


def number(function: str, name: str, value: Any) -> float:
    """A float or an int, also NumPy's."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if hasattr(value, "__float__") and not isinstance(value, torch.Tensor | bool):
        return float(value)
    raise TypeError(f"{function}: {name} must be a number, found {type(value).__name__}")


def _text(function: str, name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise TypeError(f"{function}: {name} must be a string, found {type(value).__name__}")


def _floats(function: str, name: str, value: Any, q: torch.Tensor) -> torch.Tensor | None:
    tensor = as_tensor(function, name, value, q)
    if tensor is not None and not tensor.is_floating_point():
        if isinstance(value, torch.Tensor):
            raise TypeError(
                f"{function}: {name} must be float64, float32, float16 or bfloat16, "
                f"found {tensor.dtype}"
            )
        return tensor.to(torch.get_default_dtype())
    return tensor


def integers(function: str, name: str, value: Any, q: torch.Tensor) -> torch.Tensor | None:
    """A tensor of integers, beside q, from whatever holds some."""
    if isinstance(value, int) and not isinstance(value, bool):
        return torch.full((), value, dtype=torch.int64, device=q.device)
    tensor = as_tensor(function, name, value, q)
    if tensor is not None and (
        tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool
    ):
        raise TypeError(f"{function}: {name} must be of an integer type, found {tensor.dtype}")
    return tensor


def as_tensor(function: str, name: str, value: Any, q: torch.Tensor) -> torch.Tensor | None:
    """Lists and NumPy arrays are taken where they are options."""
    if value is None or isinstance(value, torch.Tensor):
        return value
    try:
        return torch.as_tensor(value, device=q.device)
    except (TypeError, ValueError, RuntimeError) as reason:
        found = type(value).__name__
        raise TypeError(f"{function}: {name} must be a tensor, found {found}: {reason}") from reason
