"""Examples: shown items with what the models saw and said of them, and with what users did then."""

from typing import NamedTuple


class Example(NamedTuple):
    """A shown item. None where something is not known or was not predicted."""

    request_id: str
    user_id: str
    item_id: str
    position: int
    propensity: float
    source: str
    model_version: str
    served_time_ms: int
    clicked: bool
    converted: bool
    rating: float
    """0 for none."""
    experiment: str
    variant: str
    rung: int
    score: float
    retrieval_score: float | None
    click_probability: float | None
    conversion_probability: float | None
    predicted_rating: float | None
    feature_offset: int | None
    """The models saw the log's records up to here."""
    history_count: int
    log_offset: int
    """Where the impression is in the log."""


class ExamplePage(NamedTuple):
    """Examples of some answers, by time of serving, and where the next page begins; None after the last."""

    examples: list[Example]
    next_start: tuple[int, int] | None
