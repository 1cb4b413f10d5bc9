"""How do the results read? A table, on the terminal and as a page, and a roofline picture.

``python benchmarks/report.py [RESULTS.json] [--picture roofline.png]``; the newest by default.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

from peak import peak_of

RESULTS = Path(__file__).with_name("results")


def best_peaks(document):
    """The machine's rates by name, the higher of before and after; empty where not measured."""
    peaks = document["peaks"]
    return {name: max(p[name] for p in peaks) for name in peaks[0]} if peaks else {}


def table_of(document):
    """The header and the lines of the table, as text."""
    peaks = best_peaks(document)
    by_case = {}
    for row in document["rows"]:
        by_case.setdefault(row["case"], {})[row["library"]] = row
    first, *peers = document["versions"]
    header = ["case", first, "GFLOP/s", "of peak", "of read", "to plain"]
    header += [f"{peer} takes" for peer in peers]
    lines = []
    for name, rows in by_case.items():
        own = rows[first]
        if own["why_not"]:
            lines.append([name, own["why_not"], *[""] * (len(header) - 2)])
            continue
        plain = by_case.get(own["plain"], {}).get(first)
        line = [name, duration(own["best"]), f"{own['flops'] / own['best'] / 1e9:.1f}"]
        line += [*_shares(own, peaks), _to_plain(own, plain)]
        lines.append(line + [_ratio(own, rows[peer]) for peer in peers])
    return header, lines


def _shares(row, peaks):
    """The fractions of the multiply-add peak and of the rate memory is read at."""
    if not peaks:
        return "-", "-"
    peak = row["flops"] / row["best"] / peak_of(peaks, row["dtype"])
    read = row.get("read") and row["bytes"] / row["best"] / row["read"]
    return f"{100 * peak:.1f} %", f"{100 * read:.0f} %" if read else "-"


def _to_plain(row, plain):
    """The time of a visible pair, relative to the case without the option."""
    if plain is None or plain["why_not"]:
        return "-"
    return f"{row['best'] / row['flops'] / (plain['best'] / plain['flops']):.2f} ×"


def _ratio(own, peer):
    return "-" if peer["why_not"] else f"{peer['best'] / own['best']:.2f} ×"


def duration(seconds):
    """A time with the unit that suits it."""
    if seconds >= 1:
        return f"{seconds:.3f} s"
    return f"{seconds * 1e3:.3f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def facts_of(document):
    """What the results were measured on, and why rows are missing, as lines."""
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    facts = [f"{document['machine']}, {document['threads']} threads; {versions}"]
    for name, rate in best_peaks(document).items():
        unit = "GB/s" if name == "read" else "GFLOP/s"
        both = " and ".join(f"{peak[name] / 1e9:.1f}" for peak in document["peaks"])
        facts.append(f"peak {name}: {rate / 1e9:.1f} {unit} (before and after: {both})")
    facts.append(f"{document['date']}  {document['command']}  at {document.get('commit')}")
    reasons = {}
    for row in document["rows"]:
        if row["why_not"]:
            reasons.setdefault((row["library"], row["why_not"]), []).append(row["case"])
    for (library, reason), cases in reasons.items():
        facts.append(f"{library}, {len(cases)} cases: {reason}")
    return facts


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
    print("", *facts_of(document), sep="\n")


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


MARKDOWN = """# {title}

{facts}

"Of peak" is the rate of multiply-adds over that of independent ones in registers, "of read" (of
decoding) the bytes a call must move over the rate memory was read at just before and after, "to
plain" the time of a visible pair of query and key over that without the option. Other libraries:
their time over that of attnext. Each library has a process of its own, stopped while others are
timed: threads that spin in case of another call would hold the cores the next one is timed on.

{table}
"""


def markdown_of(document):
    """The table as a page."""
    header, lines = table_of(document)
    rows = [header, [":--", *["--:"] * (len(header) - 1)], *lines]
    return MARKDOWN.format(
        title=f"{document['machine']}, {document['date'][:10]}",
        facts="\n".join(f"- {fact}" for fact in facts_of(document)),
        table="\n".join(f"| {' | '.join(row)} |" for row in rows),
    )


def write(path, document):
    """PATH.json, .csv, .md and, where the peak is known and matplotlib there, .png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{path}.json").write_text(json.dumps(document, indent=1) + "\n")
    columns = (
        "case",
        "library",
        "dtype",
        "plain",
        "flops",
        "bytes",
        "best",
        "median",
        "samples",
        "read",
    )
    with open(f"{path}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, (*columns, "why_not"), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(document["rows"])
    Path(f"{path}.md").write_text(markdown_of(document))
    try:
        draw_roofline(document, f"{path}.png")
    except (ImportError, NoPeakError) as error:
        print(f"no picture: {error}", file=sys.stderr)


class NoPeakError(ValueError):
    """The results have no peak to draw a roof from."""


# Fixed hues, by library: a colour means the same in every picture.
COLOURS = {
    "attnext": "#c2410c", "torch": "#2563eb", "onnxruntime": "#0d9488", "openvino": "#7c3aed",
    "numpy": "#9ca3af",
}  # fmt: skip


def draw_roofline(document, path):
    """Rate over work per byte of every case, below what the machine can do; a panel each dtype."""
    peaks = best_peaks(document)
    if not peaks:
        raise NoPeakError("these results have no peak: a roofline needs one")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in document["rows"] if not row["why_not"]]
    present = {row["dtype"] for row in rows}
    dtypes = [d for d in ("float32", "bfloat16", "float16", "float64") if d in present]
    figure, panels = plt.subplots(
        1, len(dtypes), figsize=(1 + 3.4 * len(dtypes), 4.6), sharex=True, sharey=True,
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for axes, dtype in zip(panels[0], dtypes, strict=True):
        _draw_panel(axes, [row for row in rows if row["dtype"] == dtype], dtype, peaks)
    panels[0][0].set_ylabel("GFLOP/s")
    handles = {line.get_label(): line for axes in panels[0] for line in axes.collections}
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=len(handles), frameon=False
    )
    figure.suptitle(
        f"{document['machine']}, {document['threads']} threads: every case, and what the machine "
        "can do", ha="left", x=0.01, fontsize=11,
    )  # fmt: skip
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_panel(axes, rows, dtype, peaks):
    import numpy as np

    intensity = np.logspace(-0.5, 3.9, 200)
    peak = peak_of(peaks, dtype)
    roof = np.minimum(intensity * peaks["read"], peak) / 1e9
    axes.plot(intensity, roof, color="#374151", lw=1.2)
    axes.annotate(
        f"{peak / 1e9:.0f} GFLOP/s", (intensity[-1], roof[-1]), (0, 4),
        textcoords="offset points", ha="right", fontsize=8, color="#374151",
    )  # fmt: skip
    for name, colour in reversed(COLOURS.items()):  # attnext above the others
        own = [row for row in rows if row["library"] == name]
        if not own:
            continue
        axes.scatter(
            [row["flops"] / row["bytes"] for row in own],
            [row["flops"] / row["best"] / 1e9 for row in own],
            s=26 if name == "attnext" else 16, color=colour, label=name, zorder=3, lw=0, alpha=0.8,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte")
    axes.set_title(dtype, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)


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
        try:
            draw_roofline(document, options.picture)
        except NoPeakError as error:
            parser.error(str(error))
        print(f"{options.picture} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
