"""What is the most this machine can do? Compiles and runs peak.c, before and after the cases."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("peak.c")
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-ffp-contract=fast", "-pthread")


class PeakUnknownError(RuntimeError):
    """There is no compiler here, or it failed: fractions of the peak are left out."""


class PeakProgram:
    """peak.c, compiled for this machine into a directory that goes with the object."""

    def __init__(self):
        compiler = os.environ.get("CC") or shutil.which("cc")
        if compiler is None:
            raise PeakUnknownError("no C compiler (cc): the machine's peak is not measured")
        self._directory = tempfile.TemporaryDirectory()
        self._path = Path(self._directory.name) / "peak"
        command = [*compiler.split(), *FLAGS, str(SOURCE), "-o", str(self._path)]
        built = subprocess.run(command, capture_output=True, text=True)
        if built.returncode:
            raise PeakUnknownError(f"{' '.join(command)} failed:\n{built.stderr}")

    def measure(self, threads):
        """Rates by name: float32, float64, bfloat16 (where it is) in FLOP/s; read in bytes/s."""
        return self._run(str(threads))

    def measure_read(self, threads):
        """The rate memory is read at now, in bytes/s: on a shared machine never the same."""
        return self._run(str(threads), "read")["read"]

    def _run(self, *arguments):
        command = [self._path, *arguments]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def peak_of(peaks, dtype):
    """The peak of a dtype: float16 is computed in float32, bfloat16 in whichever is faster.

    There are machines whose bfloat16 dot product has half the rate of float32.
    """
    if dtype == "bfloat16":
        return max(peaks["float32"], peaks.get("bfloat16", 0))
    return peaks["float64" if dtype == "float64" else "float32"]
