"""No test asserts wall-clock time: hypothesis' deadline per example is off, or a busy machine would fail tests."""

import logging

import pytest
from hypothesis import settings

settings.register_profile("recmesh", deadline=None)
settings.load_profile("recmesh")


@pytest.fixture(autouse=True)
def _loggers_speak() -> None:
    """A library's own set-up of logging, as migrations do it, may switch off the loggers that are there already."""
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger) and logger.name.startswith("services."):
            logger.disabled = False
