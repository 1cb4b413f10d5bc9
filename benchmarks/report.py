"""How do the results read? A table on the terminal, and a roofline picture.

``python benchmarks/report.py [RESULTS.json] [--picture roofline.png]``; the newest by default.
"""

import argparse
import json
import sys
from pathlib import Path

from peak import peak_of

RESULTS = Path(__file__).with_name("results")


def mean_peaks(document):
    """The machine's rates by name, the mean of before and after; empty where not measured."""
    peaks = document["peaks"]
    return {name: sum(p[name] for p in peaks) / len(peaks) for name in peaks[0]} if peaks else {}


def table_of(document):
    """The header and the lines of the table, as text."""
    peaks = mean_peaks(document)
    by_case = {}
    for row in document["rows"]:
        by_case.setdefault(row["case"], {})[row["library"]] = row
    first, *peers = document["versions"]
    header = ["case", first, "GFLOP/s", "of peak", "GB/s"]
    header += [f"{peer} takes" for peer in peers]
    lines = []
    for name, rows in by_case.items():
        own = rows[first]
        if own["why_not"]:
            lines.append([name, own["why_not"], *[""] * (3 + len(peers))])
            continue
        rate = own["flops"] / own["best"]
        share = f"{100 * rate / peak_of(peaks, own['dtype']):.1f} %" if peaks else "-"
        bandwidth = own["bytes"] / own["best"] / 1e9
        line = [name, duration(own["best"]), f"{rate / 1e9:.1f}", share, f"{bandwidth:.1f}"]
        lines.append(line + [_ratio(own, rows[peer]) for peer in peers])
    return header, lines


def _ratio(own, peer):
    return "-" if peer["why_not"] else f"{peer['best'] / own['best']:.2f} ×"


def duration(seconds):
    """A time with the unit that suits it."""
    if seconds >= 1:
        return f"{seconds:.3f} s"
    return f"{seconds * 1e3:.3f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def print_table(document):
    """Print the table, what it was measured on, and why peers are missing."""
    header, lines = table_of(document)
    try:
        _print_rich(header, lines)
    except ImportError:
        widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
        for line in (header, *lines):
            cells = [line[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            print("  ".join(cells))
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    print(f"\n{document['machine']}, {document['threads']} threads; {versions}")
    for name, rate in mean_peaks(document).items():
        unit = "GB/s" if name == "read" else "GFLOP/s"
        both = " and ".join(f"{peak[name] / 1e9:.1f}" for peak in document["peaks"])
        print(f"peak {name}: {rate / 1e9:.1f} {unit} (before and after: {both})")
    print(f"{document['date']}  {document['command']}")
    _print_reasons(document)


def _print_rich(header, lines):
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    wide = None if sys.stdout.isatty() else 40 + 16 * len(header)
    Console(width=wide, highlight=False).print(table)


def _print_reasons(document):
    reasons = {}
    for row in document["rows"]:
        if row["why_not"]:
            reasons.setdefault((row["library"], row["why_not"]), []).append(row["case"])
    for (library, reason), cases in reasons.items():
        print(f"- {library}, {len(cases)} cases: {reason}")


def draw_roofline(document, path):
    """Rate over work per byte of every case, below what the machine can do."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    peaks = mean_peaks(document)
    if not peaks:
        raise SystemExit("these results have no peak: a roofline needs one")
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    intensity = np.logspace(-1, 4, 200)
    for name in [name for name in peaks if name != "read"]:
        roof = np.minimum(intensity * peaks["read"], peaks[name]) / 1e9
        axes.plot(intensity, roof, color="#6b7280", lw=1)
        axes.annotate(
            f"{name} peak", (intensity[-1], roof[-1]), ha="right", va="bottom", fontsize=8
        )
    for library in document["versions"]:
        rows = [r for r in document["rows"] if r["library"] == library and not r["why_not"]]
        axes.scatter(
            [row["flops"] / row["bytes"] for row in rows],
            [row["flops"] / row["best"] / 1e9 for row in rows],
            s=22, alpha=0.75, label=library, zorder=3,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte", ylabel="GFLOP/s")
    axes.set_title(f"{document['machine']}, {document['threads']} threads", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)


def main(argv=None):
    """Print the table of some results and draw their roofline."""
    description = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="benchmarks/report.py", description=description)
    parser.add_argument("results", nargs="?", type=Path, help="default: the newest")
    parser.add_argument("--picture", type=Path, help="write the roofline here")
    options = parser.parse_args(argv)
    found = sorted(RESULTS.glob("*.json"), key=lambda path: path.stat().st_mtime)
    path = options.results or (found[-1] if found else None)
    if path is None:
        parser.error(f"no results in {RESULTS.name}/: run benchmarks/run.py first")
    document = json.loads(path.read_text())
    print_table(document)
    if options.picture:
        draw_roofline(document, options.picture)
        print(f"{options.picture} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
