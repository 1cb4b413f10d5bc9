"""Bidirectional attention: are "12 février 2021" and "2021. február 12." the same day?

The third of the founding articles matches two sequences by one table of scores: a softmax along its
rows tells what each word of one finds in the other, a softmax along its columns what is found the
other way (the co-attention of Lu et al., 2016). Around it stands the plainest reader of pairs there
is: attend, compare each word with what it found, add up (Parikh et al., 2016).

The dates are written by babel's locale data in fourteen languages. Nobody tells the model what a
month is: it sees two dates and whether they are the same day; in half of the pairs one part, the
day, the month or the year, is wrong. Some pairs of languages never meet in training: the model has
to understand, say, Hungarian beside French without having seen it.
"""

import datetime
import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import stage
import torch
from babel import Locale
from babel.dates import format_date
from torch import nn

from attnext import plot
from attnext.torch import attention_weights, bidirectional_attention

LANGUAGES = ["cs", "de", "el", "en", "es", "fi", "fr", "hu", "it", "pl", "pt", "ru", "sv", "tr"]
UNSEEN = [("hu", "fr"), ("fi", "en"), ("el", "sv"), ("tr", "pl"), ("ru", "it"), ("cs", "es")]
SHOWN = [("fr", "hu", (2021, 2, 12)), ("en", "fi", (1987, 10, 5)), ("es", "cs", (2004, 8, 23))]
YEARS, DIM, LONGEST, BATCH = range(1980, 2030), 64, 6, 256
LIMITS = np.array([len(YEARS), 12, 28])


def words_of(language, date):
    """A (year, month, day) as the language writes it, cut into words and numbers."""
    text = format_date(datetime.date(*date), "long", locale=language)
    return re.findall(r"\w+", text.lower())


def places_of(language):
    """Where the language writes the year, the month and the day."""
    one = words_of(language, (1980, 1, 1))
    changed = [words_of(language, date) for date in ((1999, 1, 1), (1980, 12, 1), (1980, 1, 28))]
    return [next(i for i, word in enumerate(words) if word != one[i]) for words in changed]


class Calendar:
    """All dates in all languages, as numbers of words: ids (language, year, month, day, word)."""

    def __init__(self):
        parts = (LANGUAGES, YEARS, range(1, 13), range(1, 29))
        texts = [words_of(name, tuple(date)) for name, *date in itertools.product(*parts)]
        self.index = {word: i + 1 for i, word in enumerate(sorted(set(itertools.chain(*texts))))}
        rows = [[self.index[w] for w in text] + [0] * (LONGEST - len(text)) for text in texts]
        self.ids = torch.tensor(rows).reshape(*map(len, parts), LONGEST)

    def draw(self, random, pairs, count):
        """Dates in two languages each, and whether they are the same day."""
        chosen = np.array(pairs)[random.integers(len(pairs), size=count)]
        one, other = np.vectorize(LANGUAGES.index)(chosen).T
        dates = random.integers(0, LIMITS, (count, 3))
        wrong, same = dates.copy(), random.random(count) < 0.5
        rows, parts = np.flatnonzero(~same), random.integers(3, size=np.sum(~same))
        wrong[rows, parts] += random.integers(1, LIMITS[parts])  # any other value of that part
        wrong %= LIMITS
        x, y = (self.ids[(i, *date.T)] for i, date in ((one, dates), (other, wrong)))
        return x, y, torch.from_numpy(same).float()


class Reader(nn.Module):
    """Attend each other, compare each word with what it found, add up."""

    def __init__(self, count):
        super().__init__()
        self.embed = nn.Embedding(count, DIM)
        nn.init.normal_(self.embed.weight, std=0.3)
        self.match = nn.Linear(DIM, DIM, bias=False)
        nn.init.normal_(self.match.weight, std=0.4)
        self.compare = nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, 1))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x_ids, y_ids):
        x, y = self.embed(x_ids), self.embed(y_ids)
        x_exists, y_exists = x_ids > 0, y_ids > 0
        x_found, y_found = bidirectional_attention(
            self.match(x)[:, None], self.match(y)[:, None], x[:, None], y[:, None],
            q_lengths=x_exists.sum(dim=-1), kv_lengths=y_exists.sum(dim=-1),
        )  # fmt: skip
        logit = self.bias
        for own, found, exists in ((x, x_found[:, 0], x_exists), (y, y_found[:, 0], y_exists)):
            compared = self.compare((own - found) ** 2)[..., 0]
            logit = logit + (compared * exists).sum(dim=-1)
        return logit

    def weights(self, x_ids, y_ids):
        """Of both directions, for one pair: the same scores, softened along rows or columns."""
        q, k = (self.match(self.embed(ids[ids > 0])) for ids in (x_ids, y_ids))
        return [attention_weights(a, b).detach().numpy() for a, b in ((q, k), (k, q))]


def train(model, calendar, pairs, steps):
    """Adam on the cross entropy; returns the losses."""
    random, losses = np.random.default_rng(0), []
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in stage.track(range(steps), "training"):
        x, y, same = calendar.draw(random, pairs, BATCH)
        loss = nn.functional.binary_cross_entropy_with_logits(model(x, y), same)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def share_of_parts_found(model, calendar, random, count):
    """How often year, month and day give their counterpart the most weight, in each direction."""
    hits = []
    for one, other in UNSEEN:
        places = places_of(one), places_of(other)
        for date in random.integers(0, LIMITS, (count, 3)):
            ids = [calendar.ids[(LANGUAGES.index(name), *date)] for name in (one, other)]
            for p, asks, answers in zip(model.weights(*ids), places, places[::-1]):
                hits.append(p[asks].argmax(axis=-1) == answers)
    return np.mean(hits)


def draw(model, calendar):
    """The weights of three pairs of languages in both directions, above one another."""
    figure, panels = plt.subplots(2, 3, figsize=(13, 7.6), layout="constrained")
    for column, (one, other, date) in enumerate(SHOWN):
        words = words_of(one, date), words_of(other, date)
        ids = (torch.tensor([calendar.index[w] for w in text]) for text in words)
        for row, p in enumerate(model.weights(*ids)):
            target, source = words if row == 0 else words[::-1]
            asks, answers = (one, other) if row == 0 else (other, one)
            title = f"{Locale(asks).english_name} asks {Locale(answers).english_name}"
            plot.alignment_view(
                p, source=source, target=target, title=title, annotate=True, ax=panels[row, column]
            )
    for bar in figure.axes[panels.size :]:
        bar.remove()  # the weights are written into their cells
    return figure


def main():
    """Train on most pairs of languages, test on those that never met."""
    setting = stage.begin(__doc__)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so little work that threads would only wait for each other
    is_unseen = {frozenset(pair) for pair in UNSEEN}
    met = [p for p in itertools.permutations(LANGUAGES, 2) if frozenset(p) not in is_unseen]
    calendar = Calendar()
    model, random = Reader(len(calendar.index) + 1), np.random.default_rng(1)
    losses = train(model, calendar, met, 150 if setting.is_small else 500)
    with torch.inference_mode():
        x, y, same = calendar.draw(random, UNSEEN, 4000)
        right = ((model(x, y) > 0) == (same > 0)).float().mean().item()
    found = share_of_parts_found(model, calendar, random, 50)
    stage.say(f"loss {losses[0]:.3f} at first, {np.mean(losses[-20:]):.4f} at last\n")
    claims = [
        stage.Claim(
            "right about languages that never met", right, 0.7 if setting.is_small else 0.95
        ),
        stage.Claim(
            "parts that look at their counterpart", found, 0.5 if setting.is_small else 0.9
        ),
    ]
    return stage.finish(setting, draw(model, calendar), claims)


if __name__ == "__main__":
    raise SystemExit(main())
