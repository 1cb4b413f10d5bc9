"""What do the drivers share? Arguments, a process with a time limit per case, and the record."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attnext

RESULTS = Path(__file__).resolve().parent.parent / "results"


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that every driver has."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--backend", default="cuda", choices=("cuda", "cuda-emulated"))
    result.add_argument("--budget", type=float, default=570, help="seconds for the whole run")
    result.add_argument("--limit", type=float, default=20, help="seconds for a case")
    result.add_argument("--only", default="", help="cases whose name contains this")
    result.add_argument("--quick", action="store_true", help="a few small cases")
    result.add_argument("--output", type=Path, default=RESULTS, help="folder of the record")
    return result


def environment(backend: str) -> dict[str, Any]:
    """The machine and the versions: a number without them says nothing."""
    facts = {b.name: b.reason for b in attnext.backends()}
    result = {
        "attnext": attnext.__version__, "backend": backend, "device": facts.get(backend, "absent"),
        "python": platform.python_version(), "platform": platform.platform(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip
    query = "name,driver_version,clocks.max.sm,power.limit"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
            capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
        result["nvidia-smi"] = done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        result["nvidia-smi"] = f"not there: {error}"
    return result


def run_alone(module: str, arguments: list[str], limit: float, prefix: tuple[str, ...] = ()) -> Any:
    """A case in a process of its own: a hang costs `limit` seconds, a lost device one case.

    The process prints one JSON object as its last line.
    """
    command = [*prefix, sys.executable, "-m", module, *arguments]
    start = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=False,
            cwd=RESULTS.parent.parent,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"status": "hung", "seconds": limit}
    seconds = round(time.monotonic() - start, 2)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode == 0 and lines:
        return {"status": "ok", **json.loads(lines[-1]), "seconds": seconds}
    tail = (done.stderr or done.stdout).strip()[-800:]
    return {"status": "failed", "returncode": done.returncode, "output": tail, "seconds": seconds}


def select(cases: dict[str, Any], chosen: argparse.Namespace, quick: int = 4) -> dict[str, Any]:
    """The cases asked for by --only and --quick."""
    named = {name: case for name, case in cases.items() if chosen.only in name}
    return dict(list(named.items())[:quick]) if chosen.quick else named


def run_all(cases: dict[str, Any], chosen: argparse.Namespace, run: Any) -> list[dict[str, Any]]:
    """The rows of `run(name, case)` for each while the budget lasts; what did not run is said.

    `run` returns a row or a list of them.
    """
    start, rows = time.monotonic(), []
    for name, case in cases.items():
        if time.monotonic() - start > chosen.budget:
            rows.append({"case": name, "status": "not run: the budget was spent"})
            continue
        found = run(name, case)
        for row in found if isinstance(found, list) else [found]:
            rows.append({"case": name, **row})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def leave(name: str, chosen: argparse.Namespace, rows: list[dict[str, Any]]) -> int:
    """Write the dated JSON and a table; the exit status says whether every case went well."""
    record = {"driver": name, "environment": environment(chosen.backend), "rows": rows}
    chosen.output.mkdir(parents=True, exist_ok=True)
    stem = f"gpu-{name}-{datetime.date.today().isoformat()}"
    (chosen.output / f"{stem}.json").write_text(json.dumps(record, indent=1) + "\n")
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "output"))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(key, "")) for key in columns) + " |" for row in rows]
    (chosen.output / f"{stem}.md").write_text("\n".join(lines) + "\n")
    bad = [row["case"] for row in rows if row["status"] != "ok"]
    print(
        f"{len(rows) - len(bad)} of {len(rows)} cases went well; {chosen.output / stem}.json, .md"
    )
    return 1 if bad or not rows else 0
