"""Settings of the engine milvus."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from services.runtime.config import Settings

Number = int | float

# By kind of index: parameters of its building and of a search, with their defaults.
_PARAMETERS: dict[str, tuple[dict[str, Number], dict[str, Number]]] = {
    "HNSW": ({"M": 32, "efConstruction": 200}, {"ef": 128}),
    "IVF_FLAT": ({"nlist": 1024}, {"nprobe": 32}),
    "IVF_SQ8": ({"nlist": 1024}, {"nprobe": 32}),
    "DISKANN": ({}, {"search_list": 100}),
    "FLAT": ({}, {}),
    "AUTOINDEX": ({}, {}),
}


class MilvusIndexSettings(Settings):
    """How Milvus indexes a collection. The metric is the inner product (IP)."""

    kind: Literal["HNSW", "IVF_FLAT", "IVF_SQ8", "DISKANN", "FLAT", "AUTOINDEX"] = "HNSW"
    """Milvus's name of the index. DISKANN needs disks in the query nodes; FLAT is exact."""
    build: dict[str, Number] = Field(default_factory=dict)
    """Parameters of its building beside or instead of the defaults: HNSW M 32, efConstruction 200; IVF nlist 1024. They
    count for collections that are made from now on."""
    search: dict[str, Number] = Field(default_factory=dict)
    """Parameters of a search beside or instead of the defaults: HNSW ef 128, IVF nprobe 32, DISKANN search_list 100. ef
    and search_list are raised to as many as are asked for."""

    @model_validator(mode="after")
    def _check(self) -> "MilvusIndexSettings":
        build, search = _PARAMETERS[self.kind]
        for name, given, known in (("build", self.build, build), ("search", self.search, search)):
            if unknown := sorted(set(given) - set(known)):
                there = ", ".join(known) or "none"
                raise ValueError(f"{name}: {self.kind} has no parameter {', '.join(unknown)}; it has {there}")
        return self

    @property
    def build_parameters(self) -> dict[str, Number]:
        """Parameters of the building."""
        return _PARAMETERS[self.kind][0] | self.build

    def search_parameters(self, limit: int) -> dict[str, Number]:
        """Parameters of a search for `limit` vectors: no graph can be searched for more than it looks at."""
        parameters = _PARAMETERS[self.kind][1] | self.search
        return {
            name: max(value, limit) if name in ("ef", "search_list") else value for name, value in parameters.items()
        }


class MilvusSettings(Settings):
    """An external Milvus (2.4 or newer), for catalogues whose index does not fit into every process."""

    uri: str = Field(pattern=r"^https?://[^/\s]+$")
    """http://host:port of its proxy; https:// for TLS."""
    ca_file: Path | None = None
    """TLS: the authority that the server's certificate must come from, PEM; none: those that the system trusts."""
    token_file: Path | None = None
    """File that holds the token, an API key or user:password; read at start."""
    user: str | None = None
    """Who logs in, where there is no token."""
    password_file: Path | None = None
    """File that holds the user's password; read at start."""
    database: str = Field(default="default", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")
    """Milvus's database; it must exist."""
    collection_prefix: str = Field(default="recmesh", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,31}$")
    """First part of every collection's name, to share a server with others."""
    consistency: Literal["eventually", "bounded", "session", "strong"] = "eventually"
    """How new what a search sees must be. A collection does not change once it is filled, so the least is enough."""
    index: MilvusIndexSettings = MilvusIndexSettings()
    """How a collection is indexed and searched."""
    replicas: int = Field(default=1, ge=1, le=64)
    """Copies of a collection in the query nodes' memory."""
    search_timeout_ms: int = Field(default=100, ge=1, le=60_000)
    """Longest wait for a search, and never more than half of the time that the caller leaves; then the answer goes
    without the items nearest to the user."""
    write_timeout_s: float = Field(default=30.0, ge=1, le=3_600)
    """Longest wait for a step of making, filling and loading a collection; then it is tried again."""
    max_searches: int = Field(default=32, ge=1, le=1_024)
    """Searches under way at a time in this process; more wait, within search_timeout_ms."""

    @model_validator(mode="after")
    def _check(self) -> "MilvusSettings":
        if (self.user is None) != (self.password_file is None):
            raise ValueError("give user and password_file, or neither")
        if self.token_file is not None and self.user is not None:
            raise ValueError("give token_file, or user and password_file, not both")
        if self.ca_file is not None and not self.uri.startswith("https://"):
            raise ValueError("ca_file needs an uri that begins with https://")
        return self
