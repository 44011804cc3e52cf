"""Lists and drops collections of the engine milvus.

    python -m services.candidate.milvus_admin --config FILE              the collections with the prefix of the settings
    python -m services.candidate.milvus_admin --config FILE --drop NAME  one fewer

A collection that this process's own models name (CURRENT, VARIANTS) is not dropped. Others' models are not known here:
drop what no pod serves any more. A pod that serves a dropped one answers without the items nearest to the user until it
has filled the collection anew.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pymilvus.exceptions import MilvusException

from services.candidate.config import CandidateConfig
from services.candidate.milvus_collection import Collection, collection_name
from services.candidate.milvus_server import MilvusServer
from services.runtime.bundle import read_manifest, served_versions
from services.runtime.config import parse_settings, read_yaml
from services.runtime.errors import SetupError
from services.runtime.scenario import load_scenarios


def served_collections(config: CandidateConfig, prefix: str) -> dict[str, str]:
    """ "scenario version" by the name of each collection that the models of `config` name."""
    served = {}
    for scenario in load_scenarios(config.scenario_files):
        for version in served_versions(config.models, scenario):
            try:
                manifest = read_manifest(config.models / scenario / version)
            except SetupError as error:
                # What it would be called is not known, so nothing can be dropped safely.
                raise SetupError(f"{scenario} {version} is served and cannot be read: {error}") from None
            served[collection_name(prefix, manifest)] = f"{scenario} {version}"
    return served


def collections(server: MilvusServer) -> list[Collection]:
    """Those with the settings' prefix, by name."""
    client, settings = server.client(), server.settings
    names = [name for name in client.list_collections() if name.startswith(f"{settings.collection_prefix}_")]
    return [Collection(client, name, settings) for name in sorted(names)]


def drop(server: MilvusServer, served: dict[str, str], names: Sequence[str]) -> None:
    """Drop collections. SetupError, before anything is dropped, for one that is served or not there."""
    there = {collection.name: collection for collection in collections(server)}
    for name in names:
        if name in served:
            raise SetupError(f"{name}: is served here, as {served[name]}; let go of the version first")
        if name not in there:
            raise SetupError(f"{name}: no such collection; there are {', '.join(there) or 'none'}")
    for name in names:
        there[name].drop()


def main(arguments: Sequence[str] | None = None) -> None:
    """List, or drop. Ends with status 1 and the reason when it cannot."""
    parser = argparse.ArgumentParser(prog="services.candidate.milvus_admin")
    parser.add_argument("--config", type=Path, required=True, help="the candidate service's own settings")
    parser.add_argument("--drop", nargs="+", default=[], metavar="NAME", help="collections to drop")
    asked = parser.parse_args(arguments)
    try:
        config = parse_settings(CandidateConfig, read_yaml(asked.config), str(asked.config))
        if config.index.milvus is None:
            raise SetupError(f"{asked.config}: index.engine is not milvus")
        served = served_collections(config, config.index.milvus.collection_prefix)
        server = MilvusServer(config.index.milvus)
        drop(server, served, asked.drop)
        for one in collections(server):
            state = "whole" if one.complete else "not whole"
            print(f"{one.name}\t{state}\t{served.get(one.name, 'not served here')}")
    except SetupError as error:
        sys.exit(f"error: {error}")
    except MilvusException as error:
        sys.exit(f"error: Milvus: {error.message}")


if __name__ == "__main__":
    main()
