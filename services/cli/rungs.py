"""Rungs of the quality ladder as people write them: popular, retrieval, scorer, reranker."""

from recmesh.type.v1.rung_pb2 import Rung


def rung_name(number: int) -> str:
    """E.g. RUNG_SCORER → "scorer"."""
    return Rung.Name(number).removeprefix("RUNG_").lower()


def rung_value(name: str) -> str:
    """E.g. "scorer" → "RUNG_SCORER"."""
    return f"RUNG_{name.upper()}"
