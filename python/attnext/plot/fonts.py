"""Which font has these characters? The usual one, one installed here, or one from a package."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font

#: Families with the scripts that the usual fonts lack, by the names that systems give them.
FAMILIES = (
    "Noto Sans CJK", "Noto Sans SC", "Source Han Sans", "WenQuanYi", "PingFang", "Hiragino Sans GB",
    "Heiti", "Microsoft YaHei", "SimHei", "Yu Gothic", "IPAexGothic", "Malgun Gothic", "Noto Sans",
    "Droid Sans Fallback", "Arial Unicode MS", "FreeSans", "Segoe UI",
)  # fmt: skip

#: Packages that are nothing but fonts, and where in them these lie; found, never imported.
PACKAGES = (("mplfonts", "fonts"), ("japanize_matplotlib", "fonts"))


def font_for(function: str, texts: Iterable[str], font: Any) -> Any:
    """The properties of a font with every character of `texts`; None: the usual one has them.

    `font` is what the user asked for: a file, a family, or None.
    """
    if font is not None:
        return _named(font)
    needed = frozenset("".join(texts)) - {" ", "\n", "\t"}
    if needed <= _characters(font_manager.findfont(FontProperties())):
        return None
    for file in _candidates():
        if needed <= _characters(file):
            return FontProperties(fname=file)
    lacking = "".join(sorted(needed - _characters(font_manager.findfont(FontProperties()))))[:8]
    warnings.warn(
        f"{function}: no font found here with {lacking!r}: pip install mplfonts, "
        "or pass font='/path/to/a/font.ttf'",
        UserWarning,
        stacklevel=4,
    )
    return None


def _named(font: Any) -> Any:
    if isinstance(font, FontProperties):
        return font
    is_file = isinstance(font, Path) or Path(font).suffix.lower() in (".ttf", ".otf", ".ttc")
    return FontProperties(fname=str(font)) if is_file else FontProperties(family=font)


def _candidates() -> Iterator[str]:
    fonts = font_manager.fontManager.ttflist
    for family in FAMILIES:
        named = [font for font in fonts if font.name.startswith(family) and font.style == "normal"]
        # The book weight is at 400; a name alone may be that of a hairline.
        yield from (font.fname for font in sorted(named, key=_distance_from_book))
    for package, folder in PACKAGES:
        found = find_spec(package)
        for place in (found.submodule_search_locations or []) if found else []:
            files = sorted(Path(place, folder).glob("*.[ot]tf"))
            yield from map(str, files)


def _distance_from_book(font: Any) -> int:
    return abs(font.weight - 400) if isinstance(font.weight, int) else 0


@lru_cache(maxsize=32)
def _characters(file: str) -> frozenset[str]:
    return frozenset(map(chr, FT2Font(file).get_charmap()))
