"""What can go wrong, in the domain's words.

    RecmeshError
    ├── BadRequestError            the caller must change the request
    │   ├── InvalidFieldError      a field's value is outside its range
    │   └── NotFoundError          a named thing does not exist
    │       └── UnknownScenarioError
    ├── TryLaterError              the same request may succeed later
    │   ├── NotReadyError          still starting, or a dependency is away
    │   └── OverloadedError        a bounded queue is full or a quota is used up
    ├── DeadlineError              the caller's time ran out before the work was done
    └── SetupError                 a setting, a file or a bundle is wrong; stops a process at start

Transport codes are not known here: services/runtime/status.py maps each leaf to a gRPC status.
"""


class RecmeshError(Exception):
    """Base of all errors that the project raises on purpose."""


class BadRequestError(RecmeshError):
    """The caller must change the request."""


class InvalidFieldError(BadRequestError):
    """A field's value is outside its range.

    `field` is the path in the request, e.g. `events[3].value`; `problem` says what is wrong and what to send instead.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NotFoundError(BadRequestError):
    """The thing that `field` names does not exist."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class UnknownScenarioError(NotFoundError):
    """No such scenario is configured here."""

    def __init__(self, scenario: str, known: list[str]) -> None:
        super().__init__("scenario", f"{scenario!r} is not configured here; configured: {', '.join(sorted(known))}")


class TryLaterError(RecmeshError):
    """The same request may succeed after `retry_after_ms` milliseconds."""

    def __init__(self, message: str, retry_after_ms: int = 1000) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class NotReadyError(TryLaterError):
    """Still starting, or something this service needs is away."""


class OverloadedError(TryLaterError):
    """A bounded queue is full or a quota is used up."""


class DeadlineError(RecmeshError):
    """The caller's time ran out before the work was done."""


class SetupError(RecmeshError):
    """A setting, a file or a bundle is wrong. The message names it and the fix."""
