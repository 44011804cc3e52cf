import grpc
import pytest

from services.runtime import errors
from services.runtime.status import INTERNAL_TEXT, status_of


def leaves(kind: type) -> list[type]:
    # The command line adds errors of its own, which never cross gRPC.
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [leaf for child in children for leaf in leaves(child)] if children else [kind]


def build(kind: type) -> Exception:
    if kind is errors.UnknownScenarioError:
        return kind("vide", ["video", "music"])
    if issubclass(kind, errors.BadRequestError):
        return kind("events[3].value", "is nan; send a finite number")
    return kind("something is wrong")


@pytest.mark.parametrize("kind", leaves(errors.RecmeshError))
def test_every_leaf_of_the_error_tree_has_a_status_and_keeps_its_message(kind):
    error = build(kind)
    code, message = status_of(error)
    assert code is not grpc.StatusCode.INTERNAL
    assert message == str(error)


def test_an_unknown_error_leaks_nothing():
    assert status_of(RuntimeError("password=1234")) == (grpc.StatusCode.INTERNAL, INTERNAL_TEXT)


def test_try_later_errors_never_say_bad_request():
    for kind in leaves(errors.TryLaterError):
        assert status_of(build(kind))[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
