"""What do Keras's own tests of its layers test, with this plugin? attnext's, in their place."""

import keras
import pytest
from keras.src import layers

import attnext.keras

for name in attnext.keras.__all__:
    for module in (keras.layers, layers):
        setattr(module, name, getattr(attnext.keras, name))


def pytest_configure(config):
    config.addinivalue_line("markers", "requires_trainable_backend: a mark of Keras's tests")


def pytest_collection_modifyitems(items):
    if keras.backend.backend() == "numpy":
        for item in items:
            if item.get_closest_marker("requires_trainable_backend"):
                item.add_marker(pytest.mark.skip(reason="the numpy back end does not train"))
