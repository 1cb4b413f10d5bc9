"""What does a PyTorch model gain? ``python benchmarks/in_torch.py`` trains layers of transformers.

Attention is torch's, attnext's on its own threads, and attnext's on torch's. Beside other operators
it matters whose threads it runs on: those of a pool stay awake after they have worked, and hold
cores that another pool's want. Each variant has processes of its own, which take turns.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from run import RESULTS, processor

VARIANTS = ("torch", "attnext, own threads", "attnext, torch's threads")
# batch, seqlen, heads, head_dim, causal, trains
CASES = {
    "BERT, S128, training step": (8, 128, 12, 64, False, True),
    "encoder, S512, training step": (2, 512, 8, 64, False, True),
    "decoder, S1024, training step": (1, 1024, 8, 64, True, True),
    "decoder, S2048, inference": (1, 2048, 8, 64, True, False),
}
LAYERS = 2


def work(variant, name, threads, seconds):
    """Prints the milliseconds of every step, and what the first one made, as JSON."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    attend = functional.scaled_dot_product_attention
    if variant != "torch":
        import attnext.torch

        attnext.set_num_threads(threads)
        attnext.set_threading_layer("openmp" if "torch's" in variant else "attnext")
        attend = attnext.torch.scaled_dot_product_attention
    batch, seqlen, heads, head_dim, causal, trains = CASES[name]
    width = heads * head_dim

    class Layer(nn.Module):
        """Pre-norm attention and MLP."""

        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
            self.project = nn.ModuleList([nn.Linear(width, 3 * width), nn.Linear(width, width)])
            self.mlp = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
            )

        def forward(self, x):
            q, k, v = self.project[0](self.norms[0](x)).chunk(3, dim=-1)
            q, k, v = (t.unflatten(-1, (heads, head_dim)).transpose(1, 2) for t in (q, k, v))
            y = attend(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
            x = x + self.project[1](y)
            return x + self.mlp(self.norms[1](x))

    model = nn.Sequential(*(Layer() for _ in range(LAYERS)))
    x = torch.randn(batch, seqlen, width)

    def step():
        if not trains:
            with torch.no_grad():
                return model(x).sum().item()
        model.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss.item()

    result = step()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    print(json.dumps({"milliseconds": times, "result": result}))


def measure(rounds, threads, seconds):
    """{case: {variant: every step's milliseconds}}; results must agree."""
    table = {}
    for name in CASES:
        row = table[name] = {variant: [] for variant in VARIANTS}
        for n in range(rounds):
            turn = VARIANTS[n % len(VARIANTS) :] + VARIANTS[: n % len(VARIANTS)]
            results = {}
            for variant in turn:
                done = subprocess.run(
                    [sys.executable, __file__, "--work", variant, name,
                     "--threads", str(threads), "--seconds", str(seconds)],
                    check=True, capture_output=True, text=True,
                )  # fmt: skip
                answer = json.loads(done.stdout)
                row[variant] += answer["milliseconds"]
                results[variant] = answer["result"]
            reference = results["torch"]
            if any(abs(r - reference) > 1e-3 * abs(reference) + 1e-2 for r in results.values()):
                raise SystemExit(f"{name}: results differ: {results}")
        print(name, {v: f"{statistics.median(t):.1f} ms" for v, t in row.items()}, flush=True)
    return table


def write(table, options):
    """A JSON of everything and a table of the medians."""
    import numpy
    import torch

    import attnext

    facts = {
        "machine": f"{processor()}, {options.threads} threads",
        "versions": f"attnext {attnext.__version__}, torch {torch.__version__}, "
        f"numpy {numpy.__version__}",
        "date": str(datetime.date.today()),
        "command": f"python benchmarks/in_torch.py --rounds {options.rounds} "
        f"--threads {options.threads} --seconds {options.seconds:g}",
    }
    lines = [f"# A PyTorch model on a CPU, {facts['date']}", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items() if key != "date"]
    lines += ["", f"Milliseconds of {LAYERS} layers, float32, median of all steps.", ""]
    lines += ["| model | " + " | ".join(VARIANTS) + " | torch takes |"]
    lines += ["| :-- |" + " --: |" * (len(VARIANTS) + 1)]
    for name, row in table.items():
        medians = [statistics.median(row[variant]) for variant in VARIANTS]
        cells = " | ".join(f"{m:.1f}" for m in medians)
        lines.append(f"| {name} | {cells} | {medians[0] / medians[-1]:.2f} × |")
    options.output.with_suffix(".md").write_text("\n".join(lines) + "\n")
    options.output.with_suffix(".json").write_text(json.dumps({**facts, "steps": table}, indent=1))
    print("\n".join(lines))


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("?")[0] + "?")
    parser.add_argument("--rounds", type=int, default=6, help="processes of each variant (6)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=2.0, help="of steps in a process (2)")
    parser.add_argument("--output", type=Path, default=RESULTS / "in-torch")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(*options.work, options.threads, options.seconds)
    else:
        write(measure(options.rounds, options.threads, options.seconds), options)


if __name__ == "__main__":
    main()
