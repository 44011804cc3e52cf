"""Step 6: the re-ranker teaches the scorer."""

from pydantic import Field, model_validator

from services.runtime.config import Settings


class DistillationSettings(Settings):
    """The scorer's second teacher, beside what users did: the re-ranker."""

    weight: float = Field(default=0.0, ge=0)
    """Weight of the re-ranker's opinion in the scorer's loss; at 0 it is not asked. It needs reranker.enabled."""
    positions: int = Field(default=2000, ge=1)
    """Training positions at which it is asked, drawn from all."""
    temperature: float = Field(default=2.0, gt=0)
    """Divides the logits of both: the higher, the more also counts what the re-ranker holds unlikely."""

    @model_validator(mode="after")
    def _check(self) -> "DistillationSettings":
        for name in sorted(self.model_fields_set - {"weight"}) if self.weight == 0 else []:
            raise ValueError(f"{name} has no effect with weight 0; remove it")
        return self
