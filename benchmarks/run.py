"""How fast is each case, by each library? ``python benchmarks/run.py --help`` has the choices.

Libraries take turns (`turns.py` says how); the machine's peak is measured in the same run, before
and after. Writes the results as CSV, JSON, a table in Markdown and a roofline picture.
"""

import argparse
import datetime
import fnmatch
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import adapters
import report
import turns
from cases import CASES
from peak import PeakProgram, PeakUnknownError

RESULTS = Path(__file__).with_name("results")
# Relative to the largest value, at small sizes: what the library's tests allow each dtype.
TOLERANCES = {"float64": 1e-10, "float32": 2e-5, "float16": 6e-3, "bfloat16": 4e-2}


def parse(argv):
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=["*"], help="names or patterns: 'fp32_*full*'")
    parser.add_argument("--list", action="store_true", help="print the cases' names and stop")
    parser.add_argument("--check", action="store_true", help="compare with float64, time nothing")
    everything = adapters.LIBRARIES
    parser.add_argument("--libraries", nargs="+", choices=everything, default=everything)
    parser.add_argument("--rounds", type=int, default=7, help="samples of each library (7)")
    parser.add_argument("--threads", type=int, default=2, help="for every library (2)")
    parser.add_argument("--no-peak", action="store_true", help="do not measure the machine's peak")
    parser.add_argument("--output", type=Path, help="without suffix; default results/MACHINE-DATE")
    options = parser.parse_args(argv)
    options.chosen = [
        case for case in CASES if any(fnmatch.fnmatch(case.name, p) for p in options.cases)
    ]
    if not options.chosen:
        parser.error(f"no case is called {' or '.join(options.cases)}; see --list")
    if options.rounds < 2 or options.threads < 1:
        parser.error("--rounds must be at least 2 and --threads positive")
    return options


def main(argv=None):
    """Check or time the chosen cases."""
    options = parse(argv)
    if options.list:
        print("\n".join(case.name for case in options.chosen))
        return 0
    if options.check:
        return _check(options, _load(options.libraries))
    path = options.output or RESULTS / f"{_machine_slug()}-{datetime.date.today()}"
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"the machine is busy (load {load:.1f}): times will be long", file=sys.stderr)
    peak = None if options.no_peak else _peak_program()
    peaks = [peak.measure(options.threads)] if peak else []
    libraries = turns.start(options.libraries, options.threads)
    try:
        rows = _time_cases(options, libraries, peak)
    finally:
        for library in libraries.values():
            library.close()
    peaks += [peak.measure(options.threads)] if peak else []
    document = _document(options, libraries, peaks, rows, load)
    report.write(path, document)
    report.print_table(document)
    print(f"\n{path}.json, .csv, .md and, where there is a peak and matplotlib, .png written")
    return 0


def _time_cases(options, libraries, peak):
    rows, begin = [], time.monotonic()
    for number, case in enumerate(options.chosen, 1):
        seconds = int(time.monotonic() - begin)
        _progress(f"{number}/{len(options.chosen)}  {seconds // 60}:{seconds % 60:02}  {case.name}")
        rates = [peak.measure_read(options.threads)] if peak and case.is_decoding else []
        timed = turns.time_case(case, libraries, options.rounds)
        rates += [peak.measure_read(options.threads)] if rates else []
        rows += [row | {"read": sum(rates) / len(rates) if rates else None} for row in timed]
    _progress("")
    return rows


def _load(names):
    loaded = {}
    for name in names:
        try:
            loaded[name] = adapters.load(name)
        except ImportError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
    if not loaded:
        raise SystemExit("none of the libraries is installed")
    return loaded


def _peak_program():
    try:
        return PeakProgram()
    except PeakUnknownError as error:
        print(error, file=sys.stderr)
        return None


def _progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def _check(options, libraries):
    """Every case, small, by every library, against the float64 definition."""
    wrong = 0
    for case in (case.small() for case in options.chosen):
        inputs = case.inputs()
        truth = _truth(case, inputs)
        for name, library in libraries.items():
            verdict, is_right = _compare(case, inputs, truth, name, library, options.threads)
            wrong += not is_right and name == "attnext"
            print(f"{case.name:<40}{name:<14}{verdict}", flush=True)
    print(f"\n{wrong} of attnext's results wrong" if wrong else "\nall of attnext's results right")
    return 1 if wrong else 0


def _truth(case, inputs):
    """The result by the float64 definition, from inputs rounded to the case's dtype."""
    from adapters import attnext as own
    from attnext import reference

    options = own.options_of(case, inputs)
    q, k, v = (own.rounded(case, inputs[name]) for name in "qkv")
    out, lse = reference.attention(q, k, v, return_lse=True, **options)
    if not case.backward:
        return {"out": out}
    dout = own.rounded(case, inputs["dout"])
    return reference.attention_backward(dout, q, k, v, out, lse, **options)._asdict()


def _compare(case, inputs, truth, name, library, threads):
    """What to say of one library's result, and whether it is right as far as it can be told."""
    reason = library.why_not(case)
    if reason is None and case.dropout and name != "attnext":
        reason = "draws other random numbers"
    if reason is not None:
        return reason, True
    try:
        result = library.read(case, library.prepare(case, inputs, threads)())
    except Exception as error:  # one library's failure must not hide the others' results
        return f"FAILED: {error}", False
    # A NaN makes its comparison false, and so is out of tolerance.
    errors = [
        abs(array - truth[key]).max() / (abs(truth[key]).max() or 1)
        for key, array in result.items()
    ]
    is_right = all(error <= TOLERANCES[case.dtype] for error in errors)
    return f"{max(errors):.1e}  {'ok' if is_right else 'OUT OF TOLERANCE'}", is_right


def _document(options, libraries, peaks, rows, load):
    """All that a reader of the results must know."""
    return {
        "machine": processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": "python " + " ".join(["benchmarks/run.py", *sys.argv[1:]]),
        "commit": _commit(),
        "threads": options.threads,
        "load": load,
        "versions": {name: library.version for name, library in libraries.items()},
        "peaks": peaks,
        "rows": rows,
    }


def _commit():
    """The version of this tree, and whether it has been changed since; None outside of git."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=RESULTS.parent, capture_output=True, text=True,
    )  # fmt: skip
    return described.stdout.strip() or None


def processor():
    """The machine's processor by its name."""
    try:
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        match = None
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def _machine_slug():
    words = re.sub(r"\((R|TM)\)", "", processor())
    return f"{re.sub(r'[^a-z0-9]+', '-', words.lower()).strip('-')}-{os.cpu_count()}cores"


if __name__ == "__main__":
    sys.exit(main())
