"""What does one forward and backward of the demo cost, here and in plain NumPy?

Run as ``python -m attnext.demo_measure attnext|numpy SIZE PATCH``, each in a process of its own,
because a process's peak memory never falls. It prints one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any, NamedTuple

import numpy as np


class Cost(NamedTuple):
    """Seconds of one forward and backward, and the bytes it needed beyond its inputs."""

    seconds: float
    peak_bytes: int | None  # None where the system does not tell


def measure(which: str, size: int, patch: int) -> Cost:
    """The cost of one forward and backward of ``which``, in a fresh process."""
    command = [sys.executable, "-m", "attnext.demo_measure", which, str(size), str(patch)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return Cost(**json.loads(answer.stdout))


def forward_and_backward_in_numpy(q: Any, v: Any, dout: Any, scale: float) -> Any:
    """The same mathematics as one writes it in float32 NumPy: three N x N arrays."""
    norms = np.sum(q * q, axis=-1)
    distance = q @ q.T
    distance *= -2
    distance += norms[:, None] + norms
    p = np.exp(-scale * distance)
    p /= p.sum(axis=-1, keepdims=True)
    out = p @ v
    dp = dout @ v.T
    dp -= np.sum(dout * out, axis=-1, keepdims=True)
    dp *= p
    return out, -np.vdot(dp, distance)


def forward_and_backward_in_attnext(q: Any, v: Any, dout: Any, scale: float) -> Any:
    """One head of attention and the gradient of its scale."""
    import attnext

    scales = np.array([scale], np.float32)
    q, v, dout = q[None], v[None], dout[None]
    out, vjp = attnext.attention_vjp(q, q, v, score="neg_sq_l2", scale=scales)
    return out, vjp(dout).dscale[0]


WAYS = {"attnext": forward_and_backward_in_attnext, "numpy": forward_and_backward_in_numpy}


def resident_bytes(*, peak: bool) -> int | None:
    """The memory this process holds, or the most it ever held; None where Linux does not say it."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:" if peak else "VmRSS:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def main(argv: list[str]) -> None:
    """Measure one way at one size and print the cost."""
    which, size, patch = argv[0], int(argv[1]), int(argv[2])
    random = np.random.default_rng(0)
    q = random.standard_normal((size * size, 3 * patch * patch), np.float32)
    v, dout = (random.standard_normal((size * size, 3), np.float32) for _ in range(2))
    scale = 1 / q.shape[1]
    WAYS[which](q[:64], v[:64], dout[:64], scale)  # imports, threads and pages are not the cost
    before = resident_bytes(peak=False)
    begin = time.perf_counter()
    WAYS[which](q, v, dout, scale)
    seconds = time.perf_counter() - begin
    after = resident_bytes(peak=True)
    peak_bytes = None if before is None or after is None else max(0, after - before)
    print(json.dumps(Cost(seconds, peak_bytes)._asdict()))


if __name__ == "__main__":
    main(sys.argv[1:])
