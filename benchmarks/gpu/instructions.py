"""How many instructions does a kernel issue for each matrix product? Read from its machine code.

`python -m benchmarks.gpu.instructions` compiles the plain kernels (it needs nvcc and nvdisasm) and
follows the usual way around their loop over tiles: all rows of the tile exist, every pair is
allowed, no base is raised. A multiprocessor of sm_90 issues four instructions a cycle, reads the
four matrices of an ldmatrix in four, and has a product (m16n8k16) done in one cycle at its peak, in
1.6 where mma.sync reaches the 62 % of it that are reported: beyond six instructions or 0.4 of an
ldmatrix a product, something other than the matrix units is the limit. Kernels of others, as cubins
for the same architecture, stand beside them with `--cubin FILE`.
"""

from __future__ import annotations

import argparse
import glob
import heapq
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.programs import ROOT

PRODUCT, COPY, COMMIT, LOAD = "HMMA", "LDGSTS", "LDGDEPBAR", "LDSM"


@dataclass(frozen=True)
class Case:
    """A line of cuda/instances.txt; what its threads copy for a tile, and steps in one."""

    name: str
    copies: int
    steps: int = 1


CASES = [
    Case("mma_forward_f16_64_80_plain", 8),
    Case("mma_forward_f16_128_80_plain", 12),
    Case("mma_queries_f16_64_80_plain", 4),
    Case("mma_both_f16_64_80_plain", 6, 2),
    Case("mma_queries_f16_128_80_plain", 8),
    Case("mma_both_f16_128_80_plain", 10),
]


@dataclass(frozen=True)
class Usage:
    """What a warp issues for a tile."""

    instructions: int
    products: int
    loads: int

    def __str__(self) -> str:
        return (
            f"{self.products} | {self.instructions / self.products:.2f} | "
            f"{self.loads / self.products:.3f}"
        )


def find_disassembler() -> str | None:
    """Path of nvdisasm: the toolkit's, or of the package nvidia-cuda-nvdisasm."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations or [] if spec else []
    packaged = [path for folder in folders for path in glob.glob(f"{folder}/cu*/bin/nvdisasm")]
    found = shutil.which("nvdisasm") or next(iter(packaged), None)
    if found and not os.access(found, os.X_OK):
        os.chmod(found, 0o755)
    return found


def instances() -> dict[str, list[str]]:
    """Header and text of each line of cuda/instances.txt."""
    lines = (ROOT / "cuda" / "instances.txt").read_text().splitlines()
    return {line.split()[0]: line.split(maxsplit=2)[1:] for line in lines if line[:1].isalpha()}


def compile_cubin(source: Path, arch: str, folder: Path) -> tuple[Path, str]:
    """A file as a cubin in `folder`, and what ptxas said about it."""
    cubin = folder / f"{source.stem}.cubin"
    command = [
        "nvcc", "-std=c++20", "-O3", "-cubin", "-o", str(cubin), "--expt-relaxed-constexpr",
        "-Xptxas=-v,-warn-spills,-Werror", f"-gencode=arch=compute_{arch},code=sm_{arch}",
        *(f"-I{ROOT / path}" for path in ("cpp", "cpp/include", "cuda")), str(source),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    return cubin, done.stderr


def compile_instance(name: str, arch: str, folder: Path) -> tuple[Path, str]:
    """Likewise a line of cuda/instances.txt."""
    header, text = instances()[name]
    source = folder / f"{name}.cu"
    source.write_text(f'#include "{header}"\n\ntemplate {text};\n')
    return compile_cubin(source, arch, folder)


class Code:
    """The instructions of a kernel, by number, and where their branches lead."""

    def __init__(self, text: str) -> None:
        self.instructions: list[str] = []
        labels: dict[str, int] = {}
        for line in text.splitlines():
            if label := re.match(r"\s*(\.L_x_\d+):", line):
                labels[label[1]] = len(self.instructions)
            elif instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", line):
                self.instructions.append(instruction[1])
        found = [re.search(r"`\((\.L_x_\d+)\)", text) for text in self.instructions]
        self.targets = [labels.get(target[1]) if target else None for target in found]

    def has(self, number: int, operation: str) -> bool:
        """Whether an instruction is an `operation`, whatever its predicate."""
        return re.match(rf"(@!?U?P\w+\s+)?{operation}\b", self.instructions[number]) is not None

    def numbers(self, operation: str, first: int, last: int) -> list[int]:
        """Those from `first` to `last` that are one."""
        return [i for i in range(first, last + 1) if self.has(i, operation)]

    def after(self, number: int) -> Iterator[int]:
        """What may follow: warps whose lanes part (BRA.DIV) are not looked at."""
        text, target = self.instructions[number], self.targets[number]
        is_conditional = text.startswith("@") or re.match(r"BRA\S*\s+!?U?P\d", text)
        ends = self.has(number, r"(BRA|EXIT|RET\S*|BRX\S*)") and not self.has(number, r"BRA\.DIV")
        if not ends or is_conditional:
            yield number + 1
        if self.has(number, "BRA") and not self.has(number, r"BRA\.DIV") and target is not None:
            yield target

    def way(self, start: int, goal: int, first: int, last: int, copies: int = 0) -> list[int]:
        """The shortest, `start` included and `goal` not, within a range, with so many copies."""
        before: dict[tuple[int, int], tuple[int, int]] = {}
        waiting = [(0, start, 0)]
        while waiting:
            length, at, copied = heapq.heappop(waiting)
            if at == goal and copied >= copies and length > 0:
                return trace(before, (at, copied), (start, 0))
            done = min(copies, copied + self.has(at, COPY))
            for following in self.after(at):
                if first <= following <= last and (following, done) not in before:
                    before[following, done] = (at, copied)
                    heapq.heappush(waiting, (length + 1, following, done))
        raise ValueError(f"no way from instruction {start} to {goal} with {copies} copies")

    def loops(self) -> list[tuple[int, int]]:
        """First and last instruction of loops with products in them, the longest first."""
        back = [(t, i) for i, t in enumerate(self.targets) if t is not None and t <= i]
        found = [loop for loop in back if self.has(loop[1], "BRA") and self.numbers(PRODUCT, *loop)]
        return sorted(
            found, key=lambda loop: (-len(self.numbers(PRODUCT, *loop)), loop[1] - loop[0])
        )

    def around(self, loop: tuple[int, int], copies: int) -> list[int]:
        """Once around a loop, by all of its products, its copies committed before them."""
        first, last = loop
        stops = self.numbers(PRODUCT, first, last)
        if copies:
            stops = [self.numbers(COMMIT, first, last)[0], *stops]
        at, way = first, []
        for number, stop in enumerate([*stops, first]):
            if stop != at:
                way += self.way(at, stop, first, last, copies if number == 0 else 0)
            at = stop
        return way

    def usage(self, copies: int, steps: int = 1) -> Usage:
        """For a tile of `steps` steps."""
        loops = self.loops()
        whole = next(loop for loop in loops if self.numbers(COMMIT, *loop) or not copies)
        way = self.around(whole, copies)
        if steps > 1:
            step = min(loops, key=lambda loop: loop[1] - loop[0])
            way += (steps - 1) * self.around(step, 0)
        counts = [sum(self.has(i, operation) for i in way) for operation in (PRODUCT, LOAD)]
        return Usage(len(way), *counts)


def trace(
    before: dict[tuple[int, int], tuple[int, int]], at: tuple[int, int], start: tuple[int, int]
) -> list[int]:
    """The way that led to `at`, without it."""
    way = []
    while not way or at != start:
        at = before[at]
        way.append(at[0])
    return way[::-1]


def kernels(cubin: Path) -> dict[str, Code]:
    """Those of a cubin that multiply, by their mangled names."""
    disassembler = find_disassembler()
    if disassembler is None:
        raise RuntimeError("nvdisasm is not installed: pip install nvidia-cuda-nvdisasm")
    text = subprocess.run(
        [disassembler, "-c", str(cubin)], capture_output=True, text=True, check=True
    ).stdout
    parts = re.split(r"\n\.text\.(\S+):", text)
    codes = {name: Code(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    return {name: code for name, code in codes.items() if code.loops()}


def rows_of_ours(arch: str) -> Iterator[str]:
    """A line of the table for each of CASES."""
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            cubin, said = compile_instance(case.name, arch, Path(folder))
            registers = re.search(r"Used (\d+) registers", said)
            usage = next(iter(kernels(cubin).values())).usage(case.copies, case.steps)
            yield f"| {case.name} | {registers[1] if registers else '?'} | {usage} |"


def rows_of_cubin(cubin: Path) -> Iterator[str]:
    """A line for each kernel of another's: its longest loop with products, the shortest way."""
    for name, code in kernels(cubin).items():
        yield f"| {cubin.stem}: {name} | | {code.usage(0)} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="90", help="compute capability without a point")
    parser.add_argument("--cubin", type=Path, action="append", default=[], help="another's")
    chosen = parser.parse_args()
    print("| kernel | registers | products a tile | instructions | ldmatrix, a product |")
    print("|---|---|---|---|---|")
    for row in rows_of_ours(chosen.arch):
        print(row, flush=True)
    for cubin in chosen.cubin:
        for row in rows_of_cubin(cubin):
            print(row, flush=True)


if __name__ == "__main__":
    main()
