from lut.errors import HmsegError, UserError, WorkError


def test_exit_codes_are_those_the_programs_promise():
    assert UserError("x").exit_code == 2
    assert WorkError("x").exit_code == 1
    assert issubclass(UserError, HmsegError)
    assert issubclass(WorkError, HmsegError)


def test_a_caller_who_knows_only_the_standard_errors_catches_ours():
    assert issubclass(UserError, ValueError)
    assert issubclass(WorkError, RuntimeError)
