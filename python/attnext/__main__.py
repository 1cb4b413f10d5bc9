"""What can be run from a shell: ``python -m attnext info | demo | bench``."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "info": "what is there, and why something is missing [--json] [--cmake-dir]",
    "demo": "denoise a photograph by attention",
    "bench": "measure this machine",
}


def usage() -> str:
    """One line per command."""
    lines = [f"  {name:<6} {text}" for name, text in COMMANDS.items()]
    return "\n".join(["usage: python -m attnext COMMAND [options]", "", *lines])


def main(arguments: list[str]) -> int:
    """Runs the command that `arguments` names; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    command, *rest = arguments
    if command not in COMMANDS:
        print(f"attnext: no command {command!r}\n{usage()}", file=sys.stderr)
        return 2
    try:
        status: int | None = import_module(f"attnext.{command}").main(rest)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("attnext"):
            raise
        print(
            f"attnext {command}: needs {error.name}, which is not installed: "
            f"pip install 'attnext[{command}]'",
            file=sys.stderr,
        )
        return 1
    return status or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
