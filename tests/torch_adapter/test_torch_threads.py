"""Does attnext.torch work on PyTorch's threads?"""

import sys

import pytest

torch = pytest.importorskip("torch")

from processes import run_python  # noqa: E402

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not torch.backends.openmp.is_available(),
    reason="this PyTorch has no OpenMP threads that could be shared",
)

CODE = """
import os
import torch
torch.set_num_threads(3)
a = torch.randn(512, 512)
a @ a
before = len(os.listdir("/proc/self/task"))
import attnext.torch
q, k, v = (torch.randn(2, 4, 300, 32, requires_grad=True) for _ in range(3))
attnext.set_num_threads(3)
out = attnext.torch.attention(q, k, v, causal=True)
out.sum().backward()
added = len(os.listdir("/proc/self/task")) - before
expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
torch.testing.assert_close(out, expected)
print(attnext.get_threading_layer(), added)
"""


def test_its_threads_are_shared():
    layer, added = run_python(CODE, ATTNEXT_THREADING_LAYER="").split()
    assert (layer, int(added)) == ("openmp", 0)


def test_unless_told_not_to():
    layer, added = run_python(CODE, ATTNEXT_THREADING_LAYER="attnext").split()
    assert layer == "attnext"
    assert int(added) >= 1
