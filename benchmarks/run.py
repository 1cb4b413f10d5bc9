"""How fast is each case, by each library? ``python benchmarks/run.py --help`` has the choices.

Libraries take turns, A B A B ..., so that whatever slows the machine down slows them all; the
machine's peak is measured in the same run, before and after.
"""

import argparse
import csv
import datetime
import fnmatch
import json
import os
import platform
import re
import sys
import time
from pathlib import Path

import adapters
import report
from cases import CASES
from peak import PeakProgram, PeakUnknownError

RESULTS = Path(__file__).with_name("results")
# A clock read costs about 0.1 µs: calls shorter than this are timed many at once.
SHORTEST_SAMPLE = 1e-3
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
    parser.add_argument("--repeat", type=int, default=9, help="samples of each library (9)")
    parser.add_argument("--threads", type=int, default=2, help="for every library (2)")
    parser.add_argument("--no-peak", action="store_true", help="do not measure the machine's peak")
    parser.add_argument("--output", type=Path, help="without suffix; default results/MACHINE-DATE")
    options = parser.parse_args(argv)
    options.chosen = [
        case for case in CASES if any(fnmatch.fnmatch(case.name, p) for p in options.cases)
    ]
    if not options.chosen:
        parser.error(f"no case is called {' or '.join(options.cases)}; see --list")
    if options.repeat < 1 or options.threads < 1:
        parser.error("--repeat and --threads must be positive")
    return options


def main(argv=None):
    """Check or time the chosen cases."""
    options = parse(argv)
    if options.list:
        print("\n".join(case.name for case in options.chosen))
        return 0
    libraries = _load(options.libraries)
    if options.check:
        return _check(options, libraries)
    peak = None if options.no_peak else _peak_program()
    peaks = [peak.measure(options.threads)] if peak else []
    rows = []
    for number, case in enumerate(options.chosen, 1):
        _progress(f"{number}/{len(options.chosen)}  {case.name}")
        rows += _time_case(case, libraries, options)
    _progress("")
    peaks += [peak.measure(options.threads)] if peak else []
    document = _document(options, libraries, peaks, rows)
    path = options.output or RESULTS / f"{_machine_slug()}-{datetime.date.today()}"
    _write(path, document)
    report.print_table(document)
    print(f"\n{path}.json and .csv written")
    return 0


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


def _time_case(case, libraries, options):
    """One row for each library, timed in turns; with the reason where it cannot run the case."""
    rows = {name: {"case": case.name, "library": name} for name in libraries}
    inputs, calls = case.inputs(), {}
    for name, library in libraries.items():
        reason = library.why_not(case)
        if reason is None:
            try:
                call = library.prepare(case, inputs, options.threads)
                calls[name] = (call, _calls_per_sample(call))
            except Exception as error:  # a library's own refusal is a result, not our failure
                reason = f"failed: {str(error).strip().splitlines()[-1][:100]}"
        rows[name]["why_not"] = reason
    samples = {name: [] for name in calls}
    for _ in range(options.repeat):
        for name, (call, count) in calls.items():
            samples[name].append(_sample(call, count))
    for name, seconds in samples.items():
        ordered = sorted(seconds)
        rows[name] |= {"best": ordered[0], "median": ordered[len(ordered) // 2]}
    work = {"flops": case.flops(), "bytes": case.bytes(), "dtype": case.dtype}
    return [row | work for row in rows.values()]


def _calls_per_sample(call):
    """Warms up, and finds how many calls take long enough to be timed together."""
    call()
    count = 1
    while (seconds := _sample(call, count)) * count < SHORTEST_SAMPLE:
        count = max(2 * count, int(1.2 * SHORTEST_SAMPLE / max(seconds, 1e-9)))
    return count


def _sample(call, count):
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begin) / count


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
        abs(array - truth[key]).max() / abs(truth[key]).max() for key, array in result.items()
    ]
    is_right = all(error <= TOLERANCES[case.dtype] for error in errors)
    return f"{max(errors):.1e}  {'ok' if is_right else 'OUT OF TOLERANCE'}", is_right


def _document(options, libraries, peaks, rows):
    """All that a reader of the results must know."""
    return {
        "machine": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": "python " + " ".join(["benchmarks/run.py", *sys.argv[1:]]),
        "threads": options.threads,
        "versions": {name: library.version() for name, library in libraries.items()},
        "peaks": peaks,
        "rows": rows,
    }


def _processor():
    try:
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        match = None
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def _machine_slug():
    words = re.sub(r"\((R|TM)\)", "", _processor())
    return f"{re.sub(r'[^a-z0-9]+', '-', words.lower()).strip('-')}-{os.cpu_count()}cores"


def _write(path, document):
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{path}.json").write_text(json.dumps(document, indent=1) + "\n")
    columns = ("case", "library", "dtype", "flops", "bytes", "best", "median", "why_not")
    with open(f"{path}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(document["rows"])


if __name__ == "__main__":
    sys.exit(main())
