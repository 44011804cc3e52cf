"""Which engine holds the bundles' vectors."""

from services.candidate.config import IndexSettings
from services.candidate.faiss_index import FaissEngine
from services.candidate.index import Engine
from services.runtime.errors import SetupError


def make_engine(settings: IndexSettings) -> Engine:
    """The engine of the settings. SetupError when a file of theirs, or a package, is missing."""
    if settings.milvus is None:
        return FaissEngine()
    try:
        # Its client brings pandas along: a second at start and 60 MB that other deployments need not pay.
        from services.candidate.milvus_index import MilvusEngine
    except ImportError as error:
        raise SetupError(f"index.engine: milvus needs its client ({error}); install recmesh[milvus]") from None
    return MilvusEngine(settings.milvus)
