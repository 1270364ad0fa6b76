"""The one family of errors, and of warnings, that every library function raises."""


class HmsegError(Exception):
    """Base of all errors meant for a user: one clear line that says what to do."""

    exit_code = 1


class UserError(HmsegError, ValueError):
    """The user's mistake (bad argument, bad file, full disk); the programs exit with 2."""

    exit_code = 2


class WorkError(HmsegError, RuntimeError):
    """The work itself failed (parity, a regression, a lost device); the programs exit with 1."""

    exit_code = 1


class HmsegWarning(UserWarning):
    """Meant for a user, as the errors are: one clear line."""
