"""What do the open choices of a Hopper kernel gain? Contenders of experiments.cu, in turn."""

from __future__ import annotations

import sys
import tempfile

from . import common, programs

# Heads, seqlen and runs: 16384 tokens of width 2048 at head_dim 64 and 128, as others publish; and
# what the emulator does in a second.
SIZES = {"d128": ("32", "8192", "30"), "d64": ("64", "8192", "30"), "dq": ("32", "8192", "30")}
EMULATED = ("1", "200", "1")


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.experiments``."""
    chosen = common.parser(__doc__).parse_args(arguments)
    is_real = chosen.backend == "cuda"
    if programs.capability(chosen.backend) != "9.0":
        print("the experiments are compiled for sm_90a and need a device of it")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        program = programs.build("experiments.cu", chosen.backend, folder, "90a")
        cases = {}
        for name in programs.names(program):
            real = next(sizes for key, sizes in SIZES.items() if key in name)
            cases[name] = [name, *(real if is_real else EMULATED)]
        rows = common.run_all(
            common.select(cases, chosen), chosen,
            lambda _, case: programs.run(program, case, chosen.limit),
        )  # fmt: skip
    return common.leave("experiments", chosen, rows)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
