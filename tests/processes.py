"""What runs in a process of its own, and on which instruction sets of this machine?"""

import os
import subprocess
import sys


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


def supported_isas():
    """The instruction sets of this build that this machine can run, best first."""
    from attnext import _core

    return [name for name, is_supported in _core.isas() if is_supported]
