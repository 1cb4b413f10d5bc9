"""Attention in a convolutional network: each digit of a picture has to name the other one.

The articles add attention to convolutions so that a picture's regions see one another: a
convolution sees what is near, self-attention over positions sees everything (the non-local block of
Wang et al., 2018). Here two of scikit-learn's digits lie anywhere in a picture, and where a digit
lies the network has to say what the other one is.

Three networks differ in one block of about as many parameters: self-attention; two convolutions
more; or the mean of all positions, through a perceptron (Hu et al., 2018), which sees everything,
too, but the same from everywhere. Attention is shown what is beyond a position's neighbours: those
are the digit itself. The task is made for looking far: convolutions are left with guessing, but the
mean of two digits tells as much as attention does, except for where the other one is.
"""

import matplotlib.pyplot as plt
import numpy as np
import stage
import torch
from sklearn.datasets import load_digits
from torch import nn

from attnext.torch import MultiHeadAttention

CELL, DIGIT, CELLS, DIGITS = 11, 8, 3, 2
SIDE = 32  # of a picture
GRID, DIM, BATCH = 8, 32, 64
KINDS = {"attention": stage.ACCENT, "convolution": stage.SECOND, "mean": "#718096"}


class Album:
    """Pictures of two digits, in two of nine cells."""

    def __init__(self, digits, among):
        self.images = (digits.images[among] / 8).astype(np.float32)
        self.labels = digits.target[among]

    def draw(self, random, count):
        """Pictures, the positions (.., 2) of their digits, and what the other digits are."""
        pictures = np.zeros((count, 1, SIDE, SIDE), np.float32)
        chosen = random.integers(len(self.labels), size=(count, DIGITS))
        cells = np.stack([random.permutation(CELLS * CELLS)[:DIGITS] for _ in range(count)])
        corners = np.stack(np.divmod(cells, CELLS), axis=-1) * CELL
        corners += random.integers(CELL - DIGIT, size=corners.shape)
        for picture, images, places in zip(pictures[:, 0], self.images[chosen], corners):
            for image, (top, left) in zip(images, places):
                picture[top : top + DIGIT, left : left + DIGIT] = image
        positions = (corners + DIGIT // 2) * GRID // SIDE @ (GRID, 1)
        others = self.labels[chosen[:, ::-1]]
        return tuple(map(torch.from_numpy, (pictures, positions, others)))


class Attend(nn.Module):
    """Every position asks all that are not its neighbours."""

    def __init__(self):
        super().__init__()
        self.attend = MultiHeadAttention(DIM, 1)
        places = torch.cartesian_prod(torch.arange(GRID), torch.arange(GRID))
        distance = (places[:, None] - places).abs().amax(dim=-1)
        self.register_buffer("is_far", (distance > 1)[None, None])

    def forward(self, x, **wanted):
        found = self.attend(x.flatten(2).mT, mask=self.is_far, **wanted)
        found, *weights = found if wanted else (found,)
        grid = found.mT.unflatten(2, (GRID, GRID))
        return (grid, *weights) if wanted else grid


class Mean(nn.Module):
    """Every position is given the same: what the mean of all says."""

    def __init__(self):
        super().__init__()
        self.think = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.ReLU(), nn.Linear(2 * DIM, DIM))

    def forward(self, x):
        return self.think(x.mean(dim=(2, 3)))[..., None, None].expand_as(x)


def convolutions():
    """Two, through as few channels as make their parameters as many as those of attention."""
    few = round(4 * DIM / 18 + 0.5)
    return nn.Sequential(
        nn.Conv2d(DIM, few, 3, padding=1), nn.ReLU(), nn.Conv2d(few, DIM, 3, padding=1)
    )


class Network(nn.Module):
    """Convolutions, one block of a kind, and a logit of having a twin at every position."""

    def __init__(self, kind):
        super().__init__()
        self.see = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, DIM, 3, padding=1), nn.BatchNorm2d(DIM), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(DIM, DIM, 3, padding=1), nn.BatchNorm2d(DIM), nn.ReLU(),
        )  # fmt: skip
        blocks = {"attention": Attend, "convolution": convolutions, "mean": Mean}
        self.block, self.normal = blocks[kind](), nn.BatchNorm2d(DIM)
        self.answer = nn.Sequential(nn.Conv2d(2 * DIM, 48, 1), nn.ReLU(), nn.Conv2d(48, 10, 1))

    def forward(self, pictures, positions):
        """The logits (.., 2, 10) at the positions of the digits."""
        seen = self.see(pictures)
        logits = self.answer(torch.cat([seen, self.normal(self.block(seen))], dim=1)).flatten(2).mT
        return logits.take_along_dim(positions[..., None], dim=1)

    @torch.inference_mode()
    def weights(self, pictures, positions):
        """Where the positions of one picture look, by attention."""
        _, weights = self.block(self.see(pictures), rows=positions[0])
        return weights[0, 0].numpy()


def train(kind, album, seed, steps):
    """A network, by Adam on the cross entropy of the other digit's name."""
    torch.manual_seed(seed)
    model, random = Network(kind), np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, steps)
    for _ in stage.track(range(steps), f"training with {kind}, seed {seed}"):
        pictures, positions, others = album.draw(random, BATCH)
        logits = model(pictures, positions)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), others.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def share_right(model, pictures, positions, others):
    """How many digits name the other one."""
    return (model(pictures, positions).argmax(dim=-1) == others).float().mean().item()


def draw(model, found, tested):
    """Left, where the digits of three pictures look; right, the networks compared."""
    figure = plt.figure(figsize=(11.5, 8), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(2, 1))
    extent = (-1, SIDE - 1, SIDE - 1, -1)  # a position's middle is at 4 i + 1
    names = tested[2].flip(1)  # of the digits themselves
    different = torch.nonzero(names[:, 0] != names[:, 1])[:3, 0]
    for row, i in zip(left.subplots(3, 3), different):
        picture, positions, _ = (x[i : i + 1] for x in tested)
        for axes, p, name, place in zip(
            row[1:], model.weights(picture, positions), names[i], positions[0]
        ):
            axes.set_facecolor("#ffffcc")
            glow = {"cmap": "YlOrRd", "extent": extent, "interpolation": "bilinear"}
            axes.imshow(p.reshape(GRID, GRID), **glow)
            y, x = (SIDE // GRID * part + 1 for part in divmod(int(place), GRID))
            axes.plot(x, y, "o", ms=13, mfc="none", mec=stage.SECOND, mew=2)
            axes.set_title(f"the {name} looks here", color=stage.SECOND)
        row[0].set_title("picture")
        for axes in row:
            axes.imshow(np.zeros((SIDE, SIDE)), cmap="gray", alpha=picture[0, 0].numpy() / 2)
            axes.set(xlim=(-1, SIDE), ylim=(SIDE, -1), xticks=[], yticks=[])
    axes = right.subplots()
    for place, (kind, colour) in enumerate(KINDS.items()):
        axes.bar(place, np.mean(found[kind]), color=colour, width=0.6)
        axes.plot([place] * len(found[kind]), found[kind], "o", color=stage.INK, ms=4)
    axes.set_xticks(range(len(KINDS)), KINDS)
    axes.axhline(0.1, color=stage.FAINT, ls=":")
    axes.set(ylim=(0, 1), title="Others named right (dots: seeds)")
    return figure


def main():
    """Train every kind from several seeds, compare, look."""
    setting = stage.begin(__doc__)
    torch.set_num_threads(1)  # so little work that threads would only wait for each other
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    album, unseen = Album(digits, order[:1400]), Album(digits, order[1400:])
    tested = unseen.draw(np.random.default_rng(9), 1000)
    seeds, steps = (range(1), 150) if setting.is_small else (range(3), 200)
    models = {kind: [train(kind, album, seed, steps) for seed in seeds] for kind in KINDS}
    found = {kind: [share_right(m, *tested) for m in these] for kind, these in models.items()}
    for kind, (model, *_) in models.items():
        count = sum(p.numel() for p in model.block.parameters())
        stage.say(f"[bold]{kind:<12}[/bold] {count:,} parameters in its block")
    worst, best = min(found["attention"]), max(found["convolution"])
    least, lead = (0.6, 0.4) if setting.is_small else (0.9, 0.7)
    claims = [
        stage.Claim("attention: others named right, its worst seed", worst, least),
        stage.Claim("its lead over the best seed of convolutions", worst - best, lead),
        *(stage.Claim(f"{kind}: mean of seeds", np.mean(x)) for kind, x in found.items()),
    ]
    return stage.finish(setting, draw(models["attention"][0], found, tested), claims)


if __name__ == "__main__":
    raise SystemExit(main())
