"""`python -m deploy.models --config FILE`: bring the bundles, verify them, name those that serve, then end."""

import os
import sys

from deploy.models.fetch import fetch_bundle
from deploy.models.repository import lay_out
from deploy.models.settings import ModelsSettings
from deploy.triton.settings import TritonSettings
from services.runtime.bundle import serve_versions
from services.runtime.config import load_config
from services.runtime.errors import SetupError
from services.runtime.scenario import load_scenarios


def main() -> None:
    """Do it once. SetupError when anything is missing, altered or wrong."""
    config = load_config(ModelsSettings, "deploy.models")
    scenarios = load_scenarios(config.scenario_files)
    for name, configured in config.scenarios.items():
        if name not in scenarios:
            raise SetupError(f"scenarios: {name!r} is in no scenario file; they describe {', '.join(scenarios)}")
        models = configured.served(os.environ)
        bundles = [fetch_bundle(models.source, config.models, name, version) for version in models.versions]
        serve_versions(config.models, name, models.current, models.also)
        print(f"{name}: {', '.join(models.versions)} verified")
        if config.triton_repository is not None:
            settings = scenarios[name].section("triton", TritonSettings)
            names = lay_out(config.triton_repository, bundles, settings)
            print(f"{config.triton_repository}: {', '.join(names)}")


if __name__ == "__main__":
    try:
        main()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
