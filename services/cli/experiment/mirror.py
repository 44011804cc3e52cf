"""A scenario's shadow requests in the state folder: the file that ranking follows."""

import yaml

from services.cli.state import StateFolder, write_text_atomically
from services.ranking.mirror_file import mirror_path
from services.ranking.mirror_settings import MirrorSettings
from services.runtime.bundle import served_versions
from services.runtime.errors import SetupError


def start_mirror(state: StateFolder, scenario: str, settings: MirrorSettings) -> None:
    """Have a share of the requests ranked by another version as well. SetupError when that version does not serve or is
    the current one."""
    served = served_versions(state.models, scenario)
    if settings.model_version not in served:
        raise SetupError(
            f"model_version {settings.model_version!r} does not serve (served: {', '.join(served) or 'none'}); run "
            "`recmesh models serve`"
        )
    if settings.model_version == served[0]:
        raise SetupError(f"model_version {settings.model_version!r} is the current one; name another one")
    path = mirror_path(state.experiments, scenario)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, yaml.safe_dump(settings.model_dump(), sort_keys=False))


def stop_mirror(state: StateFolder, scenario: str) -> None:
    """No shadow requests any more, whatever the scenario file says."""
    path = mirror_path(state.experiments, scenario)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, "# No shadow requests.\n")
