"""Cross-modal attention: which word of a sentence looks at which part of a picture?

The articles end with attention between kinds of data, as the way to join text and image. Here a
picture holds three digits (scikit-learn's) wherever there is room, and a sentence names three, in
any order. Words attend to the 81 regions of the picture and regions to words, by one table of
scores (the co-attention of Lu et al., 2016; for words and regions, Lee et al., 2018). What is
learned is whether sentence and picture belong together, from pictures and sentences of which half
do not. No place is ever told and no digit is ever named alone; that each word finds its own digit
is measured afterwards.
"""

import matplotlib.pyplot as plt
import numpy as np
import stage
import torch
from sklearn.datasets import load_digits
from torch import nn

from attnext.torch import attention_weights, bidirectional_attention

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SIDE, DIGIT, STEP, DIM, BATCH = 24, 8, 2, 48, 128
GRID = (SIDE - DIGIT) // STEP + 1  # regions along a side: every second place of a digit's square


class Album:
    """Pictures of three digits, sentences that name three, and whether they belong together."""

    def __init__(self, digits, random):
        self.images, self.labels, self.random = digits.images / 16, digits.target, random
        places = random.integers(0, GRID, (60000, 3, 2)) * STEP
        apart = np.abs(places[:, :, None] - places[:, None]).max(axis=-1) + SIDE * np.eye(3)
        self.places = places[apart.min(axis=(1, 2)) >= DIGIT]  # digits do not overlap

    def draw(self, among, count, one_wrong=0.7):
        """`one_wrong`: the share of wrong sentences of which only one word is wrong."""
        chosen = self.random.choice(among, (count, 3))
        places = self.places[self.random.integers(len(self.places), size=count)]
        pictures, span = np.zeros((count, SIDE, SIDE), np.float32), np.arange(DIGIT)
        rows, columns = (places[..., axis, None] + span for axis in (0, 1))
        number = np.arange(count)[:, None, None, None]
        pictures[number, rows[..., :, None], columns[..., None, :]] = self.images[chosen]
        words = self.labels[chosen]  # in a random order, as the places are
        belongs = self.random.random(count) < 0.5
        for i in np.flatnonzero(~belongs):
            absent = np.setdiff1d(np.arange(10), words[i])
            is_all = self.random.random() >= one_wrong
            wrong = is_all | (np.arange(3) == self.random.integers(3))
            words[i, wrong] = self.random.choice(absent, wrong.sum())
        pairs = torch.from_numpy(pictures), torch.from_numpy(words)
        return *pairs, torch.from_numpy(belongs).float(), places


class Matcher(nn.Module):
    """Words and regions attend each other; a sentence fits where every word finds itself."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(len(NAMES), DIM)
        nn.init.normal_(self.embed.weight, std=0.4)
        self.see = nn.Sequential(nn.Linear(DIGIT * DIGIT, 128), nn.ReLU(), nn.Linear(128, DIM))
        self.word_gain, self.region_gain = (nn.Parameter(torch.tensor(0.3)) for _ in range(2))
        self.bias = nn.Parameter(torch.tensor(-4.0))

    def sides(self, pictures, words):
        """The vectors of words and of regions."""
        regions = pictures.unfold(1, DIGIT, STEP).unfold(2, DIGIT, STEP).flatten(3).flatten(1, 2)
        return self.embed(words), self.see(2 * regions)

    def forward(self, pictures, words):
        w, r = (side[:, None] for side in self.sides(pictures, words))
        w_found, r_found = bidirectional_attention(w, r, w, r, scale=1.0)
        by_words = self.word_gain * (w * w_found).sum(dim=(1, 3))
        by_regions = self.region_gain * (r * r_found).sum(dim=(1, 3))
        # Softly: the word that finds itself least, and the regions that find themselves most.
        return self.bias - torch.logsumexp(-by_words, dim=1) + torch.logsumexp(by_regions, dim=1)

    def weights(self, pictures, words):
        """Of words over regions (.., 3, regions), and of regions over words."""
        w, r = (side[:, None].detach() for side in self.sides(pictures, words))
        directions = ((w, r), (r, w))
        return [attention_weights(q, k, scale=1.0)[:, 0].numpy() for q, k in directions]


def train(model, album, among, steps):
    """Adam on the cross entropy of belonging together."""
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in stage.track(range(steps), "training"):
        pictures, words, belongs, _ = album.draw(among, BATCH)
        loss = nn.functional.binary_cross_entropy_with_logits(model(pictures, words), belongs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def own_regions(places):
    """Which region is exactly each digit's square."""
    return places[..., 0] // STEP * GRID + places[..., 1] // STEP


def weight_on_digit(p, places):
    """How much of each word's weight lies on regions that overlap its digit by half or more."""
    tops, lefts = np.divmod(np.arange(GRID * GRID), GRID)
    corners = STEP * np.stack([tops, lefts], axis=-1)
    distance = np.abs(corners - places[..., None, :])
    overlap = np.prod(np.maximum(DIGIT - distance, 0), axis=-1) / DIGIT**2
    return (p * (overlap >= 0.5)).sum(axis=-1)


def draw(model, album, among):
    """Three pictures: where each word looks, and which word each region looks at."""
    pictures, words, belongs, places = album.draw(among, 60)
    fits = [i for i in range(60) if belongs[i] and len(set(words[i].tolist())) == 3][:3]
    p_words, p_regions = model.weights(pictures, words)
    middle = (DIGIT - 1) / 2 - STEP / 2  # a region is drawn at its middle
    extent = (middle, middle + STEP * GRID, middle + STEP * GRID, middle)
    glow = {"cmap": "YlOrRd", "extent": extent, "interpolation": "bilinear"}
    figure, panels = plt.subplots(3, 5, figsize=(12.5, 8), layout="constrained")
    for row, i in zip(panels, fits):
        names = [NAMES[word] for word in words[i]]
        row[0].set_title(" ".join(names), color=stage.INK)
        for axes, name, p in zip(row[1:4], names, p_words[i]):
            axes.imshow(p.reshape(GRID, GRID), **glow)
            axes.set_facecolor("#ffffcc")
            axes.set_title(f"“{name}” looks here", color=stage.ACCENT)
        row[4].set_title("a digit's region looks at", color=stage.SECOND)
        for p, (top, left) in zip(p_regions[i][own_regions(places[i])], places[i]):
            text, paper = f"{names[p.argmax()]} {p.max():.2f}", {"fc": "white", "lw": 0, "pad": 1.5}
            row[4].text(left, top + 7, text, color=stage.SECOND, bbox=paper, zorder=9)
            corner = (left - 0.5, top - 0.5)
            row[4].add_patch(plt.Rectangle(corner, DIGIT, DIGIT, fill=False, color=stage.SECOND))
        for axes in row:
            axes.imshow(np.zeros((SIDE, SIDE)), cmap="gray", alpha=pictures[i].numpy())
            axes.set(xlim=(-0.5, SIDE - 0.5), ylim=(SIDE - 0.5, -0.5), xticks=[], yticks=[])
    return figure


def main():
    """Train on pairs, test on digits never seen, look at three."""
    setting = stage.begin(__doc__)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so little work that threads would only wait for each other
    random, digits = np.random.default_rng(0), load_digits()
    order = random.permutation(len(digits.target))
    trained, held = order[:1400], order[1400:]
    album, model = Album(digits, random), Matcher()
    train(model, album, trained, 150 if setting.is_small else 600)
    with torch.inference_mode():
        pictures, words, belongs, places = album.draw(held, 2000, one_wrong=1)
        right = ((model(pictures, words) > 0) == (belongs > 0)).float().mean().item()
        fit = belongs > 0
        p, p_back = model.weights(pictures[fit], words[fit])
    places = places[fit.numpy()]
    on_digit = weight_on_digit(p, places).mean()
    chance = weight_on_digit(np.full_like(p, 1 / GRID**2), places).mean()
    back = np.take_along_axis(p_back, own_regions(places)[..., None], axis=1)
    own_word = np.einsum("bii->b", back).mean() / 3
    least_right, least_weight = (0.55, 0.3) if setting.is_small else (0.85, 0.7)
    claims = [
        stage.Claim("one wrong word of three noticed, unseen digits", right, least_right),
        stage.Claim("weight of a word on its own digit", on_digit, least_weight),
        stage.Claim("the same if weights were even", chance),
        stage.Claim("weight of a digit's region on its own word; even: 33.3%", own_word),
    ]
    return stage.finish(setting, draw(model, album, held), claims)


if __name__ == "__main__":
    raise SystemExit(main())
