"""What does attnext.torch say where PyTorch is not installed? The name of its extra."""

BLOCKED = """
import sys
sys.modules["torch"] = None  # importing it fails, as where it is not installed
import attnext
try:
    import attnext.torch
except ImportError as error:
    print(error, "/", error.name)
"""


def test_the_extra_is_named(run_python):
    expected = 'attnext.torch needs PyTorch: pip install "attnext[torch]" / torch'
    assert run_python(BLOCKED).strip() == expected


def test_attnext_itself_does_not_import_torch(run_python):
    assert run_python("import sys, attnext; print('torch' in sys.modules)").strip() == "False"
