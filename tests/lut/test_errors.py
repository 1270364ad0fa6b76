import pickle
from dataclasses import dataclass

import pytest

from lut.errors import HmsegError, UserError, WorkError


def test_exit_codes_are_those_the_programs_promise():
    assert UserError("x").exit_code == 2
    assert WorkError("x").exit_code == 1
    assert issubclass(UserError, HmsegError)
    assert issubclass(WorkError, HmsegError)


def test_a_caller_who_knows_only_the_standard_errors_catches_ours():
    assert issubclass(UserError, ValueError)
    assert issubclass(WorkError, RuntimeError)


@dataclass(frozen=True)
class Cure:
    name: str


def wrap(error: HmsegError) -> None:
    """Say what an error is about, as callers do."""
    try:
        raise error
    except HmsegError as found:
        raise type(found)(f"table.jsonl: {found}") from found


def wrapped(error: HmsegError) -> HmsegError:
    with pytest.raises(type(error)) as caught:
        wrap(error)
    return caught.value


@pytest.mark.parametrize("kind", [UserError, WorkError])
def test_what_would_help_goes_with_an_error(kind: type[HmsegError]):
    error = kind("it is missing", mend=Cure("rest"))
    assert (str(error), error.mend) == ("it is missing", Cure("rest"))
    again = wrapped(wrapped(error))
    assert (str(again), again.mend) == ("table.jsonl: table.jsonl: it is missing", Cure("rest"))
    for whole in (error, again):
        copy = pickle.loads(pickle.dumps(whole))
        assert (type(copy), str(copy), copy.mend) == (kind, str(whole), Cure("rest"))


def test_an_error_has_its_own_help_before_that_of_its_cause():
    cause, other = UserError("a", mend=Cure("a")), WorkError("b", mend=Cure("b"))
    other.__cause__ = cause
    assert other.mend == Cure("b")


def test_an_error_without_help():
    assert wrapped(UserError("bad")).mend is None
    error = UserError("bad")
    error.__cause__ = KeyError("of another kind")
    assert pickle.loads(pickle.dumps(error)).mend is None
