"""`python -m deploy.triton --config FILE`: becomes one scenario's tritonserver."""

import sys

from deploy.triton.launcher import launch
from deploy.triton.settings import LauncherSettings, TritonSettings
from services.runtime.config import load_config
from services.runtime.errors import SetupError
from services.runtime.scenario import load_scenarios


def main() -> None:
    """Load the settings and launch; a wrong one ends the process with status 2 and a message."""
    try:
        settings = load_config(LauncherSettings, "deploy.triton")
        scenarios = load_scenarios(settings.scenario_files)
        if settings.scenario not in scenarios:
            raise SetupError(f"scenario: {settings.scenario!r} is in no scenario file")
        launch(settings, scenarios[settings.scenario].section("triton", TritonSettings))
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
