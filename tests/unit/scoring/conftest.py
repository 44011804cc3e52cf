import pytest

from tests.support.ort_pool import OrtPool
from tests.support.tiny_bundle import make_tiny_bundle


class FakeTriton:
    """What Serving needs of a Triton server; parts are executed in this process."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.error: Exception | None = None
        """Raised by `publish` while set."""
        self.refuses: dict[str, Exception] = {}
        """What `publish` raises for a version."""
        self.pools: dict[str, OrtPool] = {}

    def pool(self, bundle):
        return self.pools.setdefault(bundle.manifest.model_version, OrtPool(bundle.triton_path))

    async def publish(self, bundle):
        version = bundle.manifest.model_version
        error = self.error or self.refuses.get(version)
        if error is not None:
            raise error
        if version not in self.loaded:
            self.loaded.append(version)

    async def ready(self, bundle):
        return bundle.manifest.model_version in self.loaded

    async def withdraw(self, version):
        if version in self.loaded:
            self.loaded.remove(version)

    async def withdraw_others(self, keep):
        self.loaded = [version for version in self.loaded if version in keep]


@pytest.fixture
def triton():
    return FakeTriton()


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Versions "v1" (current) and "v2"."""
    folder = tmp_path_factory.mktemp("models")
    make_tiny_bundle(folder, version="v2", seed=1, current=False)
    make_tiny_bundle(folder, version="v1")
    return folder
