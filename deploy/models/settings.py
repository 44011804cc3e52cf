"""Settings of `python -m deploy.models`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, ValidationError, model_validator

from services.runtime.config import Settings
from services.runtime.errors import SetupError


class FolderSource(Settings):
    """Bundles in a mounted folder: a volume, or OCI artifacts mounted as volumes. They are linked, not copied."""

    kind: Literal["folder"]
    """A folder."""
    path: str
    """Where a bundle lies, e.g. "/source/{scenario}/{version}"; the names in braces are filled in."""


class BucketSource(Settings):
    """Bundles in an S3-compatible bucket. Credentials come from the environment (AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN) or from the machine's role."""

    kind: Literal["s3"]
    """A bucket."""
    url: str = Field(pattern=r"^s3://[^/]+(/.*)?$")
    """Bucket and prefix, e.g. "s3://models/recmesh"; a bundle's files lie below <url>/<scenario>/<version>/."""
    endpoint: str | None = None
    """URL of the store where it is not Amazon's."""
    region: str = "us-east-1"
    """Its region."""
    retries: int = Field(default=10, ge=0, le=100)
    """How often a request that failed is made again, with growing pauses."""


Source = Annotated[FolderSource | BucketSource, Discriminator("kind")]
"""Where bundles come from."""


class ServedVersions(Settings):
    """What `served_env` holds."""

    current: str = Field(min_length=1)
    """The version that answers whoever names none."""
    also: list[str] = Field(default_factory=list)
    """Versions to serve beside it."""


class ScenarioModels(Settings):
    """The versions of one scenario's model."""

    current: str = Field(min_length=1)
    """The version that answers whoever names none."""
    also: list[str] = Field(default_factory=list)
    """Versions to serve beside it."""
    source: Source
    """Where they come from."""
    served_env: str = ""
    """Environment variable that says what serves instead, as JSON: {"current": …, "also": […]}; `also` above is served
    beside it. Empty, or not set: what stands above. On Kubernetes the rollout controller sets it, by the pod's
    annotation."""

    def served(self, environment: Mapping[str, str]) -> "ScenarioModels":
        """As the environment has it. SetupError names the variable and what is wrong in it."""
        text = environment.get(self.served_env, "") if self.served_env else ""
        if not text:
            return self
        try:
            found = ServedVersions.model_validate_json(text)
        except ValidationError as error:
            raise SetupError(f"{self.served_env}: is {text!r}: {error.errors()[0]['msg']}") from None
        also = [version for version in [*found.also, *self.also] if version != found.current]
        return self.model_copy(update={"current": found.current, "also": also})

    @property
    def versions(self) -> list[str]:
        """All of them, the current one first."""
        return list(dict.fromkeys([self.current, *self.also]))


class ModelsSettings(Settings):
    """What to bring."""

    scenario_files: list[Path] = Field(min_length=1)
    """Scenario files; their sections `triton` size the pools."""
    models: Path
    """Folder to fill: <models>/<scenario>/<version>, CURRENT and VARIANTS."""
    scenarios: dict[str, ScenarioModels] = Field(min_length=1)
    """By scenario."""
    triton_repository: Path | None = None
    """Model repository to lay out for a pool that loads everything in it at start; needs exactly one scenario. None: no
    pool is fed."""

    @model_validator(mode="after")
    def _check(self) -> "ModelsSettings":
        if self.triton_repository is not None and len(self.scenarios) != 1:
            raise ValueError("triton_repository: a pool serves one scenario; name exactly one in scenarios")
        return self
