"""How is docs/gallery.md made? By running every example and quoting what it states and draws.

Results and pictures lie in docs/gallery; naming some examples runs only those again.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = "gallery"  # of the pictures, beside the page
HEAD = """# Gallery

Every system that the founding articles describe, and what it attends to. Each is one file that
trains, measures itself and fails if it misses what it states; pictures and numbers of this page
come from running them (`python docs/build_gallery.py`), seconds on two cores of an AMD EPYC (Zen 4)
with nothing beside them.
What each needs: `pip install "attnext[examples]"`.
"""


def examples() -> list[Path]:
    """The programs among the files of examples/: those that can be run."""
    files = sorted((ROOT / "examples").glob("*.py"))
    return [path for path in files if "__main__" in path.read_text(encoding="utf-8")]


def run(path: Path, picture: Path, size: str) -> list[str]:
    """The lines that an example states as its result."""
    command = [sys.executable, str(path), "--size", size, "--picture", str(picture)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"{path.name} missed what it states:\n{done.stdout}")
    return [line for line in done.stdout.splitlines() if line[:1] in ("✓", "·")]


def section(path: Path, results: list[str]) -> str:
    """An example's part of the page: its title, picture, results, command and what it proves."""
    document = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    title, _, text = document.partition("\n")
    stated = "\n".join(f"* {line}" for line in results)
    return f"""
## {title.rstrip(".")}

![{path.stem}]({FOLDER}/{path.stem}.png)

{text.strip()}

{stated}

```sh
python examples/{path.name}
```
"""


def main() -> None:
    """Run the examples, all or those named, and write the page of all that were ever run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="which to run again; default: all")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", metavar="FOLDER")
    options = parser.parse_args()
    unknown = set(options.names) - {path.stem for path in examples()}
    if unknown:
        parser.error(f"no example is called {', '.join(sorted(unknown))}")
    folder, parts = options.output / FOLDER, [HEAD]
    folder.mkdir(parents=True, exist_ok=True)
    for path in examples():
        results = folder / f"{path.stem}.txt"
        if not options.names or path.stem in options.names:
            print(path.name, flush=True)
            lines = run(path, folder / f"{path.stem}.png", options.size)
            results.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if results.exists():
            parts.append(section(path, results.read_text(encoding="utf-8").splitlines()))
    (options.output / "gallery.md").write_text("".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
