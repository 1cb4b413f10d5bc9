"""How does a traced program run where XLA has no foreign function? By calling Python back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from attnext import _core
from attnext.attention import AdditiveScore
from attnext.gradients import ALL
from attnext.options import DEFAULTS

from .problem import ADDITIVE, CAUSALS, SCORES


@dataclass(frozen=True)
class Callback:
    """A pass over arrays of NumPy, whose first axes are those of `jax.vmap`."""

    name: str
    attributes: tuple[tuple[str, Any], ...]
    inputs: tuple[str, ...]
    results: tuple[str, ...]

    def __call__(self, *arrays: Any) -> list[np.ndarray[Any, Any]]:
        given = {name: np.asarray(x) for name, x in zip(self.inputs, arrays, strict=True)}
        num_vmapped = given["q"].ndim - 4
        shape = np.broadcast_shapes(*(x.shape[:num_vmapped] for x in given.values()))
        examples = [
            self._run({name: _example(x, index) for name, x in given.items()})
            for index in np.ndindex(shape)
        ]
        return [np.stack(result).reshape(*shape, *result[0].shape) for result in zip(*examples)]

    def _run(self, arrays: dict[str, Any]) -> list[Any]:
        """One example, with the names of attnext's own passes."""
        is_packed = "cu_seqlens_q" in arrays
        if is_packed:  # the axis of the batch, of length 1, is JAX's side alone
            packed = ("q", "k", "v", "out", "dout", "lse", "dlse")
            arrays = {name: x[0] if name in packed else x for name, x in arrays.items()}
        made = getattr(self, f"_{self.name}")(arrays, self._options(arrays, is_packed))
        picked = [made[name] for name in self.results]
        wide = ("out", "lse", "dq", "dk", "dv", "row_max", "entropy", "key_mass")
        if is_packed:
            return [x[None] if name in wide else x for name, x in zip(self.results, picked)]
        return picked

    def _options(self, arrays: dict[str, Any], is_packed: bool) -> tuple[Any, ...]:
        static = dict(self.attributes)
        values: dict[str, Any] = {**DEFAULTS, **{k: x for k, x in arrays.items() if k in DEFAULTS}}
        if static["score"] == ADDITIVE:
            values["score"] = AdditiveScore(arrays["weight"], arrays.get("score_bias"))
        else:
            values["score"] = next(name for name, code in SCORES.items() if code == static["score"])
        values["causal"] = {code: causal for causal, code in CAUSALS.items()}[static["causal"]]
        values["window"] = (int(static["window_left"]), int(static["window_right"]))
        values["layout"] = "thd" if is_packed else static["layout"]
        for name in ("softcap", "dropout"):
            values[name] = float(static[name])
        if "scale" in static:
            values["scale"] = float(static["scale"])
        if "q_offset" in static:
            values["q_offset"] = int(static["q_offset"])
        if "seed" in arrays:
            low, high = (int(word) for word in arrays["seed"].view(np.uint32))
            values["seed"] = low | high << 32
        return tuple(values[name] for name in DEFAULTS)

    def _stream(self) -> int:
        return int(dict(self.attributes)["dropout_stream"])

    def _forward(self, a: dict[str, Any], options: tuple[Any, ...]) -> dict[str, Any]:
        out, lse = _core.forward(a["q"], a["k"], a["v"], options, True, None, self._stream(), True)
        return {"out": out, "lse": lse}

    def _backward(self, a: dict[str, Any], options: tuple[Any, ...]) -> dict[str, Any]:
        dout, q, k, v, out, lse = (a[name] for name in ("dout", "q", "k", "v", "out", "lse"))
        grads = _core.backward(dout, q, k, v, out, lse, a.get("dlse"), options, self._stream(), ALL)
        names = ("q", "k", "v", "bias", "alibi_slopes", "sinks", "scale", "weight", "score_bias")
        return {f"d{name}": grad for name, grad in zip(names, grads, strict=True)}

    def _weights(self, a: dict[str, Any], options: tuple[Any, ...]) -> dict[str, Any]:
        return {"p": _core.weights(a["q"], a["k"], options, a["rows"])}

    def _stats(self, a: dict[str, Any], options: tuple[Any, ...]) -> dict[str, Any]:
        names = ("lse", "row_max", "entropy", "key_mass")
        return dict(zip(names, _core.stats(a["q"], a["k"], options), strict=True))


def _example(x: Any, index: tuple[int, ...]) -> Any:
    """What the example at `index` sees of x, which is of length 1 along axes that all share."""
    return x[tuple(i if length > 1 else 0 for i, length in zip(index, x.shape))]
