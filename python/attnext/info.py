"""What does ``python -m attnext info`` say? All that a bug report needs."""

from __future__ import annotations

import argparse
import json
import platform
from importlib import metadata
from typing import Any

from . import _core
from .backends import backends, get_cmake_dir, get_include
from .threading_layer import get_threading_layer

OPTIONAL_PACKAGES = ("ml_dtypes", "array-api-compat", "torch", "jax", "threadpoolctl", "matplotlib")


def collect() -> dict[str, Any]:
    """Everything that `main` prints."""
    return {
        "version": _core.version(),
        "backends": [backend._asdict() for backend in backends()],
        "isa": _core.isa(),
        "isas": dict(_core.isas()),
        "num_threads": _core.get_num_threads(),
        "threading_layer": get_threading_layer(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": metadata.version("numpy"),
        "optional": {name: _version_or_none(name) for name in OPTIONAL_PACKAGES},
        "include": get_include(),
        "cmake_dir": get_cmake_dir(),
    }


def _version_or_none(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def format_facts(facts: dict[str, Any]) -> str:
    """`collect`'s result, for people."""
    lines = [
        f"attnext {facts['version']} on Python {facts['python']}, NumPy {facts['numpy']}, "
        f"{facts['platform']}"
    ]
    for backend in facts["backends"]:
        state = "yes" if backend["available"] else "no "
        lines.append(f"  {backend['name']:<10} {state}  {backend['reason']}")
    lines.append("instruction sets in this build, best first (in use: " + facts["isa"] + ")")
    for name, is_supported in facts["isas"].items():
        lines.append(f"  {name:<12} {'supported' if is_supported else 'not on this machine'}")
    lines.append("optional packages")
    for name, version in facts["optional"].items():
        lines.append(f"  {name:<17} {version or 'not installed'}")
    lines.append(f"headers   {facts['include']}")
    lines.append(f"CMake     {facts['cmake_dir']}")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """``python -m attnext info``."""
    parser = argparse.ArgumentParser(prog="python -m attnext info", description=__doc__)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--cmake-dir", action="store_true", help="only the directory for attnext_DIR"
    )
    chosen = parser.parse_args(arguments)
    if chosen.cmake_dir:
        print(get_cmake_dir())
    elif chosen.json:
        print(json.dumps(collect(), indent=2))
    else:
        print(format_facts(collect()))
    return 0
