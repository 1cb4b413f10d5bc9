"""AttentionRNN: dates in 55 languages become 2021-02-17, and each digit shows where it looked.

The first of the founding articles puts attention into a recurrent network: embedding, LSTM,
attention, linear. Its snippet attends from a last state to itself; it is read as what it builds on,
a network that translates (Bahdanau et al., 2015): an LSTM encoder reads the source both ways, an
LSTM decoder writes the target, and each of its states asks all states of the encoder by the
additive score w . tanh(W q + U k). As in Luong et al. (2015) the answer joins the state after the
LSTM and not before it, so that in training all states of a batch ask in one call.

Letter by letter, from babel's locale data. Sources are of any length: those of a batch are packed
for the LSTM, and attention is told their lengths. Tested on days that no language ever showed.
"""

import datetime
import itertools

import matplotlib.pyplot as plt
import numpy as np
import stage
import torch
from babel.dates import format_date
from torch import nn
from torch.nn.utils import rnn

from attnext import plot
from attnext.torch import AdditiveAttention

SHOWN = {"en": "English", "hu": "Hungarian", "el": "Greek"}
OTHERS = """af ar az be bg bn ca cs cy da de es et eu fa fi fil fr ga gl he hi hr id is it ja ka kk
ko lt lv mk ms nl no pl pt ro ru sk sl sq sr sv sw ta th tr uk vi zh"""
LANGUAGES = [*SHOWN, *OTHERS.split()]
DAY = datetime.date(2021, 2, 17)
SYMBOLS = "0123456789-"  # of the target; the next number stands for its begin
LENGTH = len("2021-02-17")
FIRST, LAST = (datetime.date(year, 1, 1).toordinal() for year in (1950, 2050))
EMBEDDED, HIDDEN, BATCH = 32, 64, 128


class Dates:
    """Sources and targets as numbers of letters; one day in ten is held out in every language."""

    def __init__(self, languages, count):
        random = np.random.default_rng(0)
        self.languages, self.index = languages, {}
        days = random.permutation(np.arange(FIRST, LAST))
        held, known = np.split(days, [len(days) // 10])
        self.trained = [self.write(random, known) for _ in range(count)]
        self.held = [self.write(random, held) for _ in range(2000)]

    def write(self, random, days):
        """A day in any language, in either of its long forms, and its ISO form."""
        day = datetime.date.fromordinal(int(random.choice(days)))
        form = random.choice(["long", "full"])
        return format_date(day, form, locale=str(random.choice(self.languages))), day.isoformat()

    def tensors(self, pairs):
        """The sources, their lengths, and the targets."""
        rows = [[self.index.setdefault(a, len(self.index) + 1) for a in x] for x, _ in pairs]
        sources = rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        targets = torch.tensor([[SYMBOLS.index(a) for a in y] for _, y in pairs])
        return sources, torch.tensor([len(row) for row in rows]), targets


class AttentionRNN(nn.Module):
    """Embedding, LSTM encoder and decoder, additive attention, linear."""

    def __init__(self, letters):
        super().__init__()
        self.read = nn.Embedding(letters, EMBEDDED)
        self.encoder = nn.LSTM(EMBEDDED, HIDDEN, batch_first=True, bidirectional=True)
        self.written = nn.Embedding(len(SYMBOLS) + 1, EMBEDDED)
        self.decoder = nn.LSTM(EMBEDDED, HIDDEN, batch_first=True)
        self.attend = AdditiveAttention(HIDDEN, 2 * HIDDEN, HIDDEN)
        self.linear = nn.Linear(3 * HIDDEN, len(SYMBOLS))

    def encode(self, sources, lengths):
        packed = rnn.pack_padded_sequence(
            self.read(sources), lengths, batch_first=True, enforce_sorted=False
        )
        return rnn.pad_packed_sequence(self.encoder(packed)[0], batch_first=True)[0]

    def decode(self, encoded, lengths, previous, memory=None, is_watched=False):
        """What follows each previous symbol; the decoder's memory; where its states looked."""
        states, memory = self.decoder(self.written(previous), memory)
        found = self.attend(states, encoded, kv_lengths=lengths, return_weights=is_watched)
        found, weights = found if is_watched else (found, None)
        return self.linear(torch.cat([states, found], dim=-1)), memory, weights

    def forward(self, sources, lengths, targets):
        """The logits of every symbol, given the right ones before it."""
        begin = torch.full_like(targets[:, :1], len(SYMBOLS))
        previous = torch.cat([begin, targets[:, :-1]], dim=1)
        return self.decode(self.encode(sources, lengths), lengths, previous)[0]

    @torch.inference_mode()
    def translate(self, sources, lengths):
        """The likeliest symbol after each other, and the weights (batch, symbol, letter)."""
        encoded, memory, weights = self.encode(sources, lengths), None, []
        symbols = [torch.full((len(sources), 1), len(SYMBOLS))]
        for _ in range(LENGTH):
            logits, memory, looked = self.decode(encoded, lengths, symbols[-1], memory, True)
            symbols.append(logits.argmax(dim=-1))
            weights.append(looked)
        return torch.cat(symbols[1:], dim=1), torch.cat(weights, dim=1).numpy()


def train(model, dates, steps):
    """Adam on the cross entropy of the next symbol; returns the losses."""
    random, losses = np.random.default_rng(1), []
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    for _ in stage.track(range(steps), "training"):
        pairs = [dates.trained[i] for i in random.integers(len(dates.trained), size=BATCH)]
        sources, lengths, targets = dates.tensors(pairs)
        logits = model(sources, lengths, targets)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def weight_on_year(weights, pairs):
    """How much of the weight of the year's four symbols lies on the year's letters."""
    places = [x.index(y[:4]) for x, y in pairs]
    return np.mean([p[:4, i : i + 4].sum(axis=-1) for p, i in zip(weights, places)])


def draw(model, dates):
    """Where each symbol of the same day looked, in three languages."""
    pairs = [(format_date(DAY, "full", locale=x), DAY.isoformat()) for x in SHOWN]
    symbols, weights = model.translate(*dates.tensors(pairs)[:2])
    figure, panels = plt.subplots(3, 1, figsize=(10, 10.5), layout="constrained")
    for axes, name, (source, _), row, p in zip(panels, SHOWN.values(), pairs, symbols, weights):
        target = "".join(SYMBOLS[i] for i in row)
        plot.alignment_view(
            p[:, : len(source)], source=list(source), target=list(target), title=name, ax=axes
        )
    return figure


def main():
    """Train, translate the held-out days, look at three."""
    setting = stage.begin(__doc__)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so little work that threads would only wait for each other
    languages = LANGUAGES[:6] if setting.is_small else LANGUAGES
    dates = Dates(languages, 4000 if setting.is_small else 40000)
    letters = len(set(itertools.chain(*(x for x, _ in dates.trained + dates.held))))
    model = AttentionRNN(letters + 1)
    losses = train(model, dates, 150 if setting.is_small else 500)
    sources, lengths, targets = dates.tensors(dates.held)
    symbols, weights = model.translate(sources, lengths)
    right = (symbols == targets).all(dim=1).float().mean().item()
    on_year = weight_on_year(weights, dates.held)
    stage.say(f"loss {losses[0]:.3f} at first, {np.mean(losses[-20:]):.4f} at last\n")
    stage.say(f"{len(languages)} languages, {letters} letters")
    claims = [
        stage.Claim("held-out dates exactly right", right, 0.8 if setting.is_small else 0.95),
        stage.Claim("weight of a year's digits on the year", on_year, 0.8),
    ]
    return stage.finish(setting, draw(model, dates), claims)


if __name__ == "__main__":
    raise SystemExit(main())
