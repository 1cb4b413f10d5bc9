"""What is attention in torch's own words? The naive formula, which torch can differentiate."""

import torch

import attnext

BATCH, HEADS_Q, HEADS_K, SEQLEN_Q, SEQLEN_K, DIM, DIM_V = 2, 4, 2, 5, 7, 6, 3
PAIRS = (BATCH, HEADS_Q, SEQLEN_Q, SEQLEN_K)


def floats(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=dtype)


def arrays():
    """q, k, v, leaves that require grad."""
    shapes = (
        (BATCH, HEADS_Q, SEQLEN_Q, DIM),
        (BATCH, HEADS_K, SEQLEN_K, DIM),
        (BATCH, HEADS_K, SEQLEN_K, DIM_V),
    )
    return tuple(floats(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes))


def learned(*shape, seed=10):
    return floats(*shape, seed=seed).requires_grad_()


def additive(*, weight=(DIM,), bias=None):
    return attnext.AdditiveScore(learned(*weight), None if bias is None else learned(*bias))


# Every option, alone and with others: name, and what makes the options anew.
CASES = {
    "plain": dict,
    "cosine": lambda: {"score": "cosine", "scale": 3.0},
    "neg_l2": lambda: {"score": "neg_l2"},
    "neg_sq_l2": lambda: {"score": "neg_sq_l2", "scale": 0.3},
    "additive": lambda: {"score": additive()},
    "additive_bias": lambda: {"score": additive(bias=(DIM,))},
    "additive_per_head": lambda: {"score": additive(weight=(HEADS_Q, DIM), bias=(HEADS_Q, DIM))},
    "scale_per_head": lambda: {"scale": learned(HEADS_Q)},
    "scale_learned_once": lambda: {"scale": learned()},
    "cosine_learned": lambda: {"score": "cosine", "scale": learned(HEADS_Q)},
    "negative_scale": lambda: {"scale": -0.5},
    "causal": lambda: {"causal": True},
    "top_left": lambda: {"causal": "top_left"},
    "q_offset": lambda: {"causal": True, "q_offset": 3},
    "q_offsets": lambda: {"causal": True, "q_offset": torch.tensor([-2, 4])},
    "window": lambda: {"window": (2, 1)},
    "window_open": lambda: {"window": (None, 0)},
    "softcap": lambda: {"softcap": 0.7},
    "mask": lambda: {"mask": floats(*PAIRS) > -0.5},
    "mask_of_rows": lambda: {"mask": (floats(SEQLEN_Q, 1) > 0).expand(SEQLEN_Q, SEQLEN_K)},
    "bias": lambda: {"bias": learned(*PAIRS)},
    "bias_per_head": lambda: {"bias": learned(HEADS_Q, 1, SEQLEN_K)},
    "bias_per_batch": lambda: {"bias": learned(BATCH, 1, SEQLEN_Q, 1)},
    "bias_expanded": lambda: {"bias": learned(1, SEQLEN_K).expand(*PAIRS)},
    "alibi": lambda: {"alibi_slopes": learned(HEADS_Q)},
    "alibi_per_batch": lambda: {"alibi_slopes": learned(BATCH, HEADS_Q), "causal": True},
    "sinks": lambda: {"sinks": learned(HEADS_Q)},
    "dropout": lambda: {"dropout": 0.4, "seed": 2**64 - 3},
    "lengths": lambda: {"q_lengths": torch.tensor([5, 2]), "kv_lengths": [3, 7], "causal": True},
    "all": lambda: {
        "scale": learned(HEADS_Q), "causal": "top_left", "window": (3, -1), "softcap": 2.0,
        "mask": floats(1, 1, SEQLEN_Q, SEQLEN_K) > -1, "bias": learned(HEADS_Q, SEQLEN_Q, 1),
        "alibi_slopes": learned(HEADS_Q, seed=11), "sinks": learned(HEADS_Q, seed=12),
        "dropout": 0.2, "seed": 5, "kv_lengths": [7, 6],
    },
    "all_additive": lambda: {
        "score": additive(bias=(HEADS_Q, DIM)), "scale": learned(), "causal": True,
        "softcap": 1.0, "bias": learned(SEQLEN_K), "sinks": learned(HEADS_Q, seed=12),
    },
}  # fmt: skip


def differentiable(options):
    """The leaves among the options that have a gradient, by name."""
    found = {}
    for name, value in options.items():
        if isinstance(value, attnext.AdditiveScore):
            found |= {"weight": value.weight, "score_bias": value.bias}
        elif isinstance(value, torch.Tensor):
            found[name] = value
    return {name: x for name, x in found.items() if x is not None and x.requires_grad and x.is_leaf}


def attention(q, k, v, **options):
    """(out, lse), by the score matrix."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s, visible = scores(q, k, options), visible_pairs(q, k, options)
    has_keys = visible.any(-1, keepdim=True)
    s = torch.where(visible, s, -torch.inf)
    s = torch.where(has_keys, s, 0.0)  # no NaN of an empty row, for its gradient's sake
    if (sinks := options.get("sinks")) is not None:
        s = torch.cat([s, sinks[:, None, None].expand(*s.shape[:-1], 1)], -1)
    p = torch.softmax(s, -1)[..., : k.shape[2]] * has_keys
    if options.get("dropout"):
        keep = attnext.dropout_mask(p.shape, options["dropout"], options["seed"])
        p = p * torch.from_numpy(keep) / (1 - options["dropout"])
    empty = -torch.inf if sinks is None else sinks[:, None]
    lse = torch.where(has_keys[..., 0], torch.logsumexp(s, -1), empty)
    return p @ v, torch.where(existing_rows(q, options), lse, -torch.inf)


def scores(q, k, options):
    """Up to the mask; k has a head for each of q's."""
    score, scale = options.get("score", "dot"), options.get("scale")
    if score == "dot":
        s, default = q @ k.mT, q.shape[-1] ** -0.5
    elif score == "cosine":
        unit = torch.nn.functional.normalize
        s, default = unit(q, dim=-1) @ unit(k, dim=-1).mT, None
    elif isinstance(score, str):
        distance = (q[..., :, None, :] - k[..., None, :, :]).square().sum(-1)
        s, default = -(distance if score == "neg_sq_l2" else distance.sqrt()), 1.0
    else:
        weight, bias = (
            0.0 if x is None else x.expand(q.shape[1], DIM)[:, None, None] for x in score
        )
        total = q[..., :, None, :] + k[..., None, :, :] + bias
        s, default = (weight * torch.tanh(total)).sum(-1), 1.0
    scale = default if scale is None else scale
    s = s * (scale[:, None, None] if isinstance(scale, torch.Tensor) and scale.dim() else scale)
    if cap := options.get("softcap"):
        s = cap * torch.tanh(s / cap)
    if (bias := options.get("bias")) is not None:
        s = s + bias
    if (slopes := options.get("alibi_slopes")) is not None:
        s = s - slopes[..., None, None] * distances(q, k, options).abs()
    return s


def lengths(q, k, options):
    """Of each sequence, (B, 1, 1, 1)."""
    full = {"q_lengths": q.shape[2], "kv_lengths": k.shape[2]}
    return (
        torch.as_tensor(options.get(name, [size] * q.shape[0]))[:, None, None, None]
        for name, size in full.items()
    )


def distances(q, k, options):
    """Of key j from the position of query i, (B, 1, Sq, Sk)."""
    len_q, len_k = lengths(q, k, options)
    offset = options.get("q_offset")
    if offset is None:
        offset = torch.zeros_like(len_k) if options.get("causal") == "top_left" else len_k - len_q
    else:
        offset = torch.as_tensor(offset).reshape(-1, 1, 1, 1)
    return torch.arange(k.shape[2]) - torch.arange(q.shape[2])[:, None] - offset


def existing_rows(q, options):
    rows = torch.as_tensor(options.get("q_lengths", [q.shape[2]] * q.shape[0]))
    return torch.arange(q.shape[2]) < rows[:, None, None]


def visible_pairs(q, k, options):
    _, len_k = lengths(q, k, options)
    distance = distances(q, k, options)
    visible = (torch.arange(k.shape[2]) < len_k) & existing_rows(q, options)[..., None]
    left, right = (-1 if x is None else x for x in options.get("window") or (-1, -1))
    right = 0 if options.get("causal") else right
    visible = visible & (distance >= -left) if left >= 0 else visible
    visible = visible & (distance <= right) if right >= 0 else visible
    visible = visible.expand(q.shape[0], q.shape[1], -1, -1)
    return visible if options.get("mask") is None else visible & options["mask"]
