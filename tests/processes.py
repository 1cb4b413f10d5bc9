"""What runs in a process of its own, and on which instruction sets of this machine?"""

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def run_python(code, **environment):
    """Runs code in a process of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_tests(*arguments, **environment):
    """Runs some of our tests in a process of its own; returns how many passed, and all must."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=1200,
        cwd=TESTS.parent,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return int(re.search(r"(\d+) passed", done.stdout)[1])


def supported_isas():
    """The instruction sets of this build that this machine can run, best first."""
    from attnext import _core

    return [name for name, is_supported in _core.isas() if is_supported]
