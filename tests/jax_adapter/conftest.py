"""How do the tests of attnext.jax run where it was built without jaxlib? Through its callback."""

import os
import warnings

import pytest


@pytest.fixture(scope="session", autouse=True)
def _said_once():
    """The warning that there are no foreign functions has a test of its own."""
    from attnext.jax.targets import has_foreign_functions

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = has_foreign_functions()
    wanted = os.environ.get("ATTNEXT_JAX") in ("ON", "pip")
    assert found or not wanted, "ATTNEXT_JAX asked for foreign functions, and there are none"
