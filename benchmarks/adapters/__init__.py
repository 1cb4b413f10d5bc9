"""What does the runner ask of a library? Each module here answers with the same four functions.

``version()``
    The library's version as text; ImportError where it is not installed.
``why_not(case)``
    Why this library cannot run the case, in a few words; None if it can.
``prepare(case, inputs, threads)``
    A function without arguments that runs the case once and returns the library's own result.
    Conversions to the library's own arrays, compilation and, for a backward case, the forward
    pass are done before, so that they are not timed.
``read(case, result)``
    The result as NumPy arrays by name: ``out``, or ``dq``, ``dk`` and ``dv``.
"""

import importlib

LIBRARIES = ("attnext", "numpy", "torch", "onnxruntime", "openvino")


def load(library):
    """The adapter of a library."""
    return importlib.import_module(f"adapters.{library}")
