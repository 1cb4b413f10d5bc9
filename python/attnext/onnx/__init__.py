"""The standard Attention operator of ONNX: run by attnext, and written for attnext's own calls."""

from __future__ import annotations

from typing import Any

try:
    import onnx  # noqa: F401  (only to say by name what is missing)
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'attnext.onnx needs onnx: pip install "attnext[onnx]"', name=error.name
    ) from error

from .operator import Attention

__all__ = ["Attention", "translations"]


def translations() -> dict[Any, Any]:
    """How ``torch.onnx.export`` writes `attnext.torch.attention`: as the standard Attention node.

    Returns
    -------
    dict
        For ``torch.onnx.export(model, inputs, dynamo=True, opset_version=23,
        custom_translation_table=attnext.onnx.translations())``.

    Raises
    ------
    ImportError
        PyTorch or onnxscript is not installed.

    Notes
    -----
    While exporting, NotImplementedError names what the node cannot express: scores other than the
    dot product, a scale for each head, sinks, dropout, lse, packed sequences and block tables;
    ValueError an `opset_version` below 23.

    ``is_causal`` of the node says what "top_left" says. So does "bottom_right" over as many keys as
    queries; every other rule of who sees whom becomes a mask, computed in the graph from the
    arrays' sizes, and ALiBi becomes a bias in the type of q.
    """
    from .export import table

    return table()
