"""Which events are kept, by what their users agreed to. Pure."""

from enum import IntEnum

from services.feedback.config import ConsentSettings
from services.runtime.scenario import EVENT_NUMBERS


class Consent(IntEnum):
    """What an event says of its user's consent; numbers of the proto enum."""

    UNSPECIFIED = 0
    GRANTED = 1
    DENIED = 2


class ConsentRules:
    """A scenario's kinds of events that need a consent."""

    def __init__(self, settings: ConsentSettings) -> None:
        self._required = frozenset(EVENT_NUMBERS[event] for event in settings.required)
        self._default = Consent.GRANTED if settings.default == "granted" else Consent.DENIED

    def allow(self, event_kind: int, consent: int) -> bool:
        """Whether an event of the kind may be kept."""
        return event_kind not in self._required or (consent or self._default) == Consent.GRANTED
