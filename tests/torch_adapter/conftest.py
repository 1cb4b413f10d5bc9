"""What do tests with torch share? One thread of torch: more would only wait for each other."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _one_thread_of_torch():
    try:
        import torch
    except ImportError:  # whose tests run without it are those of its absence
        yield
        return
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)
