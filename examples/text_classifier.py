"""A text classifier in torch and in Keras: does this docstring describe a class or a function?

The founding articles' classifier, in both: embedding, positions, self-attention, attention pooling,
sigmoid. Their position formula gives all axes one value: it is read as the sinusoids of Vaswani et
al. (2017). Their weights, the softmax of a perceptron that sees one word, compare no words: they
are read as the pooling of Yang et al. (2016), after a self-attention that does compare.

The text is the documentation of Python's own modules and of installed packages: a class is a thing,
a function does something. Files are either trained on or tested on.
"""

import ast
import os
import re
import warnings
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import stage
import torch
from torch import nn

import attnext
from attnext.torch import AttentionPooling, MultiHeadAttention, SinusoidalPositions

PACKAGES = ("asyncio", "numpy", "matplotlib", "sklearn")  # the first stands for Python's own
OTHERS = {"test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo"}
LONGEST, DIM, HEADS, BATCH, RATE, EPOCHS = 64, 32, 2, 64, 5e-3, 3
SHOWN, LINE, KINDS, MARGIN = 10, 102, ("function", "class"), 0.05


def described(packages):
    """The documented classes (True) and functions (False): words, file and kind of each."""
    found, roots = {}, [Path(find_spec(name).origin).parent for name in packages]
    roots[0] = roots[0].parent
    files = [(root, path) for root in roots for path in sorted(root.rglob("*.py"))]
    warnings.simplefilter("ignore", SyntaxWarning)  # of other people's code
    for root, path in stage.track(files, "reading documentation"):
        if OTHERS & set(path.relative_to(root).parts):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                words = re.findall(r"[a-z]\w*", (ast.get_docstring(node) or "").lower())
                where = str(path), isinstance(node, ast.ClassDef)
                found.setdefault(tuple(words[:LONGEST]), where)
    return [(words, *where) for words, where in found.items() if len(words) >= 3]


class Texts:
    """As many functions as classes; one file in five is held out."""

    def __init__(self, packages):
        random, every = np.random.default_rng(0), described(packages)
        parts = [[text for text in every if text[2] == kind] for kind in (True, False)]
        few = min(map(len, parts))
        chosen = [part[i] for part in parts for i in random.permutation(len(part))[:few]]
        unseen = {x for x in sorted({path for _, path, _ in chosen}) if random.random() < 0.2}
        self.words = [words for words, _, _ in chosen]
        self.labels = np.array([kind for _, _, kind in chosen], np.float32)
        is_held = np.array([path in unseen for _, path, _ in chosen])
        self.held, self.trained = np.flatnonzero(is_held), np.flatnonzero(~is_held)
        counted = Counter(word for i in self.trained for word in self.words[i])
        common = enumerate(sorted(word for word, count in counted.items() if count >= 2))
        self.index = {word: i + 2 for i, word in common}  # 1: rare, 0: no word
        self.lengths = np.array(list(map(len, self.words)))
        self.ids = np.zeros((len(chosen), LONGEST), np.int64)
        for row, words in zip(self.ids, self.words):
            row[: len(words)] = [self.index.get(word, 1) for word in words]

    def share_right(self, p):
        return np.mean((p > 0.5) == self.labels[self.held])


class Classifier(nn.Module):
    """The probability that a text describes a class, in torch."""

    def __init__(self, size):
        super().__init__()
        self.embed = nn.Embedding(size, DIM)
        nn.init.normal_(self.embed.weight, std=0.3)
        self.positions = SinusoidalPositions(DIM, LONGEST)
        self.attend = MultiHeadAttention(DIM, HEADS)
        self.pool = AttentionPooling(DIM, DIM, 1)
        nn.init.normal_(self.pool.weight)  # not small: it is to choose from the first

    def forward(self, ids, lengths, is_watched=False):
        x = self.positions(self.embed(torch.from_numpy(ids)))
        x = x + self.attend(x, kv_lengths=lengths)
        pooled = self.pool(x, lengths=lengths, return_weights=is_watched)
        logits, weights = pooled if is_watched else (pooled, None)
        return torch.sigmoid(logits[:, 0]), weights

    def keras_weights(self):
        """The parameters, as Keras orders and shapes them: heads in axes of their own."""
        out, pool, found = self.attend.out_proj, self.pool, [self.embed.weight]
        for part in (self.attend.q_proj, self.attend.k_proj, self.attend.v_proj):
            found += [part.weight.T.reshape(DIM, HEADS, -1), part.bias.reshape(HEADS, -1)]
        found += [out.weight.T.reshape(HEADS, -1, DIM), out.bias, pool.proj.weight.T]
        found += [pool.proj.bias, pool.weight, pool.out_proj.weight.T, pool.out_proj.bias]
        return [x.detach().numpy().copy() for x in found]


def keras_classifier(size):
    """The same in Keras, on any of its back ends that is chosen before; otherwise on torch."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    from keras import layers, ops

    from attnext.keras import AdditiveAttention, MultiHeadAttention

    ids = keras.Input((LONGEST,), dtype="int32")
    exists = ops.not_equal(ids, 0)
    x = layers.Embedding(size, DIM)(ids) + attnext.sinusoidal_positions(LONGEST, DIM)
    x = x + MultiHeadAttention(HEADS, DIM // HEADS)(x, x, attention_mask=exists[:, None])
    hidden = layers.Dense(DIM)(x)
    nothing = ops.zeros_like(hidden[:, :1])  # the query of pooling is in its score
    pooled = AdditiveAttention()([nothing, ops.tanh(hidden), hidden], mask=[None, exists])
    model = keras.Model(ids, layers.Dense(1, activation="sigmoid")(pooled[:, 0]))
    model.compile(keras.optimizers.Adam(RATE), "binary_crossentropy")
    return model


def train(model, texts):
    """Adam on the cross entropy, in torch."""
    optimizer, random = torch.optim.Adam(model.parameters(), RATE), np.random.default_rng(1)
    for _ in stage.track(range(EPOCHS), "training in torch"):
        order = random.permutation(texts.trained)
        for part in np.array_split(order, len(order) // BATCH):
            p, _ = model(texts.ids[part], texts.lengths[part])
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy(p, torch.from_numpy(texts.labels[part])).backward()
            optimizer.step()


def keras_claims(model, initial, texts, p):
    """The same parameters give the same answers; from the same beginning it learns as well."""
    twin, held, known = keras_classifier(len(texts.index) + 2), texts.ids[texts.held], texts.trained
    twin.set_weights(model.keras_weights())
    apart = np.abs(twin.predict(held, verbose=0)[:, 0] - p).max()
    twin.set_weights(initial)
    for _ in stage.track(range(EPOCHS), "training in Keras"):
        twin.fit(texts.ids[known], texts.labels[known], batch_size=BATCH, verbose=0)
    right = texts.share_right(twin.predict(held, verbose=0)[:, 0])
    return [
        stage.Claim("Keras: held-out texts judged right", right),
        stage.Claim("torch and Keras apart", abs(right - texts.share_right(p)), None, MARGIN),
        stage.Claim("Keras with torch's parameters: largest difference", apart, None, 1e-5, ".1e"),
    ]


def draw(texts, p, weights):
    """Held-out texts, and the weights of their words."""
    figure, axes = plt.subplots(figsize=(11, 9), layout="constrained")
    line, lengths = 0, texts.lengths[texts.held]
    for i in np.flatnonzero((lengths > 9) & (lengths < 33))[:: len(lengths) // (3 * SHOWN)][:SHOWN]:
        row, is_class = texts.held[i], p[i] > 0.5
        end = ("  (wrong)", "")[int(is_class == texts.labels[row])]
        said = f"{KINDS[int(is_class)]}, {max(p[i], 1 - p[i]):.0%}{end}"
        axes.text(0, line, said, color=stage.ACCENT if is_class else stage.SECOND, fontsize=9)
        line, column = line + 1, 0
        for word, weight in zip(texts.words[row], weights[i] / weights[i].max()):
            if column + len(word) > LINE:
                line, column = line + 1, 0
            glow = {"facecolor": plt.get_cmap("YlOrRd")(0.7 * weight), "ec": "none", "pad": 1.6}
            axes.text(column, line, word, family="monospace", fontsize=10.5, bbox=glow)
            column += len(word) + 1
        line += 1.7
    axes.set(xlim=(0, LINE), ylim=(line, -1), title="Where pooling looks in unseen documentation")
    axes.axis("off")
    return figure


def main():
    """Train in torch and, where there is Keras, in Keras; look at what was read."""
    setting = stage.begin(__doc__)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so little work that threads would only wait for each other
    texts = Texts(PACKAGES[: 1 if setting.is_small else None])
    stage.say(f"{len(texts.words):,} texts, {len(texts.index):,} words")
    model = Classifier(len(texts.index) + 2)
    initial = model.keras_weights()
    train(model, texts)
    with torch.inference_mode():
        found = model(texts.ids[texts.held], texts.lengths[texts.held], is_watched=True)
        p, weights = (x.numpy() for x in found)
    right, least = texts.share_right(p), 0.65 if setting.is_small else 0.8
    claims = [stage.Claim("torch: held-out texts judged right", right, least)]
    if find_spec("keras") is None:
        stage.say("[bold]Keras is not installed: its half is left out.[/bold]")
    else:
        claims += keras_claims(model, initial, texts, p)
    return stage.finish(setting, draw(texts, p, weights), claims)


if __name__ == "__main__":
    raise SystemExit(main())
