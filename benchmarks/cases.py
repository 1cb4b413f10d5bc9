"""What is timed? The cases, as data; the work and the memory traffic of each; its inputs."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Case:
    """One call of attention: forward, or backward alone with out and lse at hand."""

    name: str
    batch: int = 1
    heads: int = 8
    kv_heads: int | None = None  # as many as heads where absent
    seqlen: int = 2048
    seqlen_k: int | None = None  # as many as queries where absent
    head_dim: int = 64
    dtype: str = "float32"
    backward: bool = False
    score: str = "dot"
    causal: bool = False  # bottom-right aligned
    window: tuple | None = None  # (left, right), both inclusive, -1 open
    softcap: float | None = None
    alibi: bool = False
    bias: bool = False  # float, (1, heads, Sq, Sk)
    mask: bool = False  # bool, (1, 1, Sq, Sk), nine of ten attend
    sinks: bool = False
    dropout: float = 0.0
    lengths: tuple | None = None  # of packed sequences, in place of batch and seqlen
    course: str | None = None  # how scores move along the keys: one of COURSES
    plain: str | None = None  # the case this one decorates, whose time a score its own is held to

    @property
    def keys(self):
        """The number of keys of each sequence."""
        return self.seqlen if self.seqlen_k is None else self.seqlen_k

    @property
    def key_heads(self):
        """The number of heads of k and v."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def scale(self):
        """What the call passes as scale: near 1/sqrt(head_dim) for all but cosine."""
        return 10.0 if self.score == "cosine" else self.head_dim**-0.5

    def visible(self, seqlen, seqlen_k):
        """For each query of one sequence, the first key that causal and window show, and the end.

        Dense masks show or hide pairs beyond that, but no library may skip their work.
        """
        centre = np.arange(seqlen) + seqlen_k - seqlen
        left, right = self.window or (-1, -1)
        right = 0 if self.causal else right
        first = np.zeros_like(centre) if left < 0 else centre - left
        end = np.full_like(centre, seqlen_k) if right < 0 else centre + right + 1
        return np.clip(first, 0, seqlen_k), np.clip(end, 0, seqlen_k)

    def visible_pairs(self):
        """The (query, key) pairs of all sequences and heads that causal and window leave."""
        sequences = self.lengths or (self.seqlen,) * self.batch
        pairs = 0
        for length in sequences:
            first, end = self.visible(length, length if self.lengths else self.keys)
            pairs += int(np.maximum(end - first, 0).sum())
        return pairs * self.heads

    def flops(self):
        """Multiplications and additions of the products alone: two forward, five backward."""
        return self.visible_pairs() * self.head_dim * (10 if self.backward else 4)

    def bytes(self):
        """What must be read or written at least once."""
        size = {"float64": 8, "float32": 4}.get(self.dtype, 2)
        tokens_q = sum(self.lengths) if self.lengths else self.batch * self.seqlen
        tokens_k = sum(self.lengths) if self.lengths else self.batch * self.keys
        queries, keys = tokens_q * self.heads, tokens_k * self.key_heads
        # forward: q out, k v; backward: q dout out dq, k v dk dv.
        rows = 4 * queries + 4 * keys if self.backward else 2 * queries + 2 * keys
        extra = self.heads * self.seqlen * self.keys * 4 * self.bias
        extra += self.seqlen * self.keys * self.mask
        return rows * self.head_dim * size + extra

    @property
    def is_decoding(self):
        """Whether memory is what limits the call: one query reads all keys and values."""
        return self.seqlen == 1

    def small(self):
        """The same call at a size where the float64 definition is quick: for checking."""
        if self.lengths:
            return replace(self, lengths=tuple(max(1, length // 16) for length in self.lengths))
        seqlen = min(self.seqlen, 200)
        window = self.window and tuple(min(reach, 40) for reach in self.window)
        keys = None if self.seqlen_k is None else min(self.seqlen_k, 300)
        return replace(self, seqlen=seqlen, seqlen_k=keys, window=window)

    def inputs(self):
        """Every array of the call by its argument's name, in float32 or, where so typed, float64.

        Adapters round to the case's dtype themselves, because not every library knows every dtype.
        """
        random = np.random.default_rng(0)
        real = np.float64 if self.dtype == "float64" else np.float32
        arrays = {
            name: random.standard_normal(shape).astype(real)
            for name, shape in self._normal_shapes().items()
        }
        if self.mask:
            arrays["mask"] = random.random((1, 1, self.seqlen, self.keys)) < 0.9
        if self.alibi:
            slopes = 2.0 ** (-8 / self.heads * np.arange(1, self.heads + 1))
            arrays["alibi_slopes"] = slopes.astype(real)
        if self.course == "nothing":
            arrays["bias"] = np.full((1, 1, self.seqlen, self.keys), -np.inf, real)
        elif self.course:
            arrays["q"][..., -1] = 1 / self.scale
            arrays["k"][..., -1] = COURSES[self.course](np.arange(self.keys), self.keys)
        if self.lengths:
            arrays["cu_seqlens"] = np.cumsum((0, *self.lengths), dtype=np.int32)
        return arrays

    def _normal_shapes(self):
        """The shapes of the arrays that are standard normal."""
        if self.lengths:
            tokens = sum(self.lengths)
            shape_q = (tokens, self.heads, self.head_dim)
            shape_k = (tokens, self.key_heads, self.head_dim)
        else:
            shape_q = (self.batch, self.heads, self.seqlen, self.head_dim)
            shape_k = (self.batch, self.key_heads, self.keys, self.head_dim)
        shapes = {"q": shape_q, "k": shape_k, "v": shape_k}
        if self.backward:
            shapes["dout"] = shape_q
        if self.bias:
            shapes["bias"] = (1, self.heads, self.seqlen, self.keys)
        if self.sinks:
            shapes["sinks"] = (self.heads,)
        if self.score == "additive":
            shapes["weight"] = (self.head_dim,)
        return shapes


# What is added to the scores of successive keys, of which a tile holds 128: data that an online
# softmax likes least. "nothing" is a bias of -inf for every pair.
COURSES = {
    "grows": lambda key, _: 10.0 * (key // 128),
    "grows_steeply": lambda key, _: 60.0 * (key // 128),
    "spike": lambda key, keys: np.where(key == keys - 2, 100.0, 0.0),
    "nothing": None,
}


def _both_passes(case):
    plain = case.plain and (f"{case.plain}_forward", f"{case.plain}_backward")
    return [
        replace(case, name=f"{case.name}_forward", plain=plain and plain[0]),
        replace(case, name=f"{case.name}_backward", plain=plain and plain[1], backward=True),
    ]


SHORT_NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


def _prefill():
    for dtype, short in SHORT_NAMES.items():
        for head_dim in (64, 128):
            for causal in (False, True):
                kind = "causal" if causal else "full"
                name = f"{short}_s2048_d{head_dim}_{kind}"
                yield from _both_passes(Case(name, head_dim=head_dim, causal=causal, dtype=dtype))
    for head_dim in (64, 128):
        for causal in (False, True):
            kind = "causal" if causal else "full"
            name = f"fp32_s512_d{head_dim}_{kind}"
            yield from _both_passes(Case(name, seqlen=512, head_dim=head_dim, causal=causal))


def _odd_shapes():
    yield from _both_passes(Case("fp32_s256_d64_full", seqlen=256))
    yield from _both_passes(Case("fp32_s1000_d80_full", seqlen=1000, head_dim=80))
    for head_dim in (8, 40, 96, 160, 256):
        name = f"fp32_s1024_d{head_dim}_full"
        yield from _both_passes(Case(name, seqlen=1024, head_dim=head_dim))


def _long():
    yield from _both_passes(Case("fp32_s8192_d64_one_head", heads=1, seqlen=8192))
    yield Case("fp32_s65536_d64_one_head_causal_forward", heads=1, seqlen=65536, causal=True)
    window = Case("fp32_s8192_d64_window256", seqlen=8192, causal=True, window=(256, 0))
    yield from _both_passes(replace(window, plain="fp32_s2048_d64_causal"))


def _decode():
    base = Case("decode", heads=32, seqlen=1, head_dim=128)
    for dtype in ("float32", "bfloat16"):
        for kv_heads in (8, 32):
            for keys in (4096, 8192):
                name = f"{SHORT_NAMES[dtype]}_decode_32over{kv_heads}_k{keys}"
                yield replace(base, name=name, kv_heads=kv_heads, seqlen_k=keys, dtype=dtype)


def _options():
    full = Case("option", plain="fp32_s2048_d64_full")
    yield from _both_passes(replace(full, name="option_bias", bias=True))
    yield from _both_passes(replace(full, name="option_mask", mask=True))
    causal = replace(full, causal=True, plain="fp32_s2048_d64_causal")
    yield from _both_passes(replace(causal, name="option_alibi", alibi=True))
    yield from _both_passes(replace(causal, name="option_softcap", softcap=30.0))
    yield from _both_passes(replace(causal, name="option_sinks", sinks=True))
    yield from _both_passes(replace(causal, name="option_dropout", dropout=0.1))
    lengths = (2048, 64, 512, 1000, 300, 1400)
    yield from _both_passes(replace(causal, name="option_ragged", lengths=lengths))


def _scores():
    for score in ("cosine", "neg_sq_l2", "neg_l2"):
        plain = "fp32_s2048_d64_full"
        yield from _both_passes(Case(f"score_{score}", score=score, plain=plain))
    # Every pair of an additive score costs head_dim tanh: a shorter sequence says as much.
    yield from _both_passes(Case("score_additive", score="additive", seqlen=512))


def _courses():
    for course in COURSES:
        plain = "option_bias_forward" if course == "nothing" else "fp32_s2048_d64_full_forward"
        yield Case(f"course_{course}_forward", course=course, plain=plain)


def _small_calls():
    for heads, seqlen, head_dim in ((1, 8, 16), (8, 32, 64), (12, 128, 32)):
        name = f"small_h{heads}_s{seqlen}_d{head_dim}"
        case = Case(name, heads=heads, seqlen=seqlen, head_dim=head_dim)
        yield from _both_passes(case)


CASES = [
    *_prefill(), *_odd_shapes(), *_long(), *_decode(), *_options(), *_scores(), *_courses(),
    *_small_calls(),
]  # fmt: skip
