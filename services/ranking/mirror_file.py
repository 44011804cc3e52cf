"""A scenario's shadow requests in a file of their own, followed while the process runs."""

from pathlib import Path

from services.ranking.followed_file import FileFollower
from services.ranking.mirror import Mirror
from services.ranking.mirror_metrics import MirrorMetrics
from services.ranking.mirror_settings import MirrorSettings
from services.runtime.config import parse_settings, read_yaml


def mirror_path(folder: Path, scenario: str) -> Path:
    """Where a scenario's MirrorSettings document lies; names of scenarios have no dots."""
    return folder / f"{scenario}.mirror.yaml"


def read_mirror(path: Path) -> MirrorSettings | None:
    """The settings in a file; none: the file is empty, so there are no shadow requests. SetupError when it is wrong."""
    content = read_yaml(path)
    return parse_settings(MirrorSettings, content, str(path)) if content is not None else None


class MirrorFollower(FileFollower):
    """Keeps a mirror at what the file says; without a file, at what the scenario file says."""

    def __init__(
        self,
        scenario: str,
        configured: MirrorSettings | None,
        folder: Path | None,
        mirror: Mirror,
        metrics: MirrorMetrics,
    ) -> None:
        """`configured`: the scenario file's; `folder`: none where only that counts."""
        super().__init__(scenario, "mirror", mirror_path(folder, scenario) if folder is not None else None)
        self._scenario = scenario
        self._configured = configured
        self._mirror = mirror
        self._metrics = metrics

    def take(self, path: Path | None) -> str | None:
        """See FileFollower."""
        settings = self._configured if path is None else read_mirror(path)
        self._mirror.settings = settings
        self._metrics.show(self._scenario, settings)
        return settings.model_version if settings is not None else None

    def refuse(self) -> None:
        """See FileFollower."""
        self._metrics.refuse_file(self._scenario)
