"""What is attention? The definition in plain NumPy, to be read and to be tested against.

Every formula is written out on the full score matrix, one sequence at a time, in float64. Nothing
is shared with the kernels. `passes.py` is the place to start; `scores.py` has the five scores
beside their gradients, `problem.py` says which query may attend which key, `dropout.py` which pair
is dropped, `joint.py` what is built of attention.

The functions have the names, options and results of the package itself, with three differences:
results are NumPy arrays, they are float64 whatever the inputs were, and ``dtype=`` asks for the
same naive formula in another precision (for float16 and bfloat16: inputs rounded to it, arithmetic
in float32, weights and results rounded again), which is the yardstick for the error of a kernel.
"""

from .dropout import dropout_mask
from .joint import (
    BidirectionalGrads,
    attention_pool,
    bidirectional_attention,
    bidirectional_attention_backward,
    merge_attention,
)
from .passes import (
    AttentionGrads,
    AttentionStats,
    attention,
    attention_backward,
    attention_stats,
    attention_vjp,
    attention_weights,
)

__all__ = [
    "AttentionGrads",
    "AttentionStats",
    "BidirectionalGrads",
    "attention",
    "attention_backward",
    "attention_pool",
    "attention_stats",
    "attention_vjp",
    "attention_weights",
    "bidirectional_attention",
    "bidirectional_attention_backward",
    "dropout_mask",
    "merge_attention",
]
