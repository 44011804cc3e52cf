"""No test asserts wall-clock time: hypothesis' deadline per example is off, or a busy machine would fail tests."""

from hypothesis import settings

settings.register_profile("recmesh", deadline=None)
settings.load_profile("recmesh")
