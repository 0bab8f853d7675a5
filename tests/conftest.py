"""Settings for all tests."""

import pytest
from hypothesis import settings

# How long an example takes says something about the machine, not about the code.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Programs of others take their time, so what needs them is slow."""
    for item in items:
        if item.get_closest_marker("counterpart"):
            item.add_marker(pytest.mark.slow)
