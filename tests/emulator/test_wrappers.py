"""Do the wrappers and their twins define the same functions, and do kernels use nothing else?"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REAL, TWIN = ROOT / "cuda" / "ptx", ROOT / "tests" / "emulator" / "ptx"
LISTS = ["declarations.h", "declarations_sm90.h"]
SHARED = {*LISTS, "README.md"}  # one copy, for both


def declared() -> list[str]:
    """The names of every declaration, repeated for overloads."""
    text = "".join((REAL / name).read_text() for name in LISTS)
    text = re.sub(r"//.*", "", text)
    return re.findall(r"PTX_FN\s+[\w ]+?\s(\w+)\(", text)


def defined(folder: Path) -> list[str]:
    """The names of every definition: they are qualified, so a stray signature does not compile."""
    text = "".join(path.read_text() for path in folder.glob("*.h") if path.name not in SHARED)
    return re.findall(r"PTX_FN\s+[\w ]+?\sptx::(\w+)\(", text)


@pytest.mark.parametrize("folder", [REAL, TWIN], ids=["real", "twin"])
def test_every_declaration_is_defined(folder):
    assert len(declared()) > 70
    assert sorted(defined(folder)) == sorted(declared())


def test_every_header_has_a_twin():
    real = {path.name for path in REAL.iterdir()} - SHARED
    assert real == {path.name for path in TWIN.iterdir()}


FORBIDDEN = r"\basm\b|\bthreadIdx\b|\bblockIdx\b|\b__shared__\b|<<<|\b__sync\w+|\b__shfl\w+"


def kernel_files() -> list[Path]:
    folders = [ROOT / "cuda" / name for name in ("common", "simt", "mma")]
    return sorted(path for folder in folders for path in folder.rglob("*.cu*"))


@pytest.mark.parametrize("path", kernel_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_kernels_use_wrappers_only(path):
    code = re.sub(r"//.*", "", path.read_text())
    assert re.findall(FORBIDDEN, code) == []
