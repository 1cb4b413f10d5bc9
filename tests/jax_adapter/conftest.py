"""How do the tests of attnext.jax run where it was built without jaxlib? Through its callback."""

import warnings

import pytest


@pytest.fixture(scope="session", autouse=True)
def _said_once():
    """The warning that there are no foreign functions has a test of its own."""
    from attnext.jax.targets import has_foreign_functions

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        has_foreign_functions()
