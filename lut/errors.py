"""The one family of errors, and of warnings, that every library function raises."""

from typing import Any


class HmsegError(Exception):
    """Base of all errors meant for a user: one clear line that says what to do.

    `mend` says in data what would help: a small frozen dataclass beside the function that raises.
    A program knows which of its commands that is; a message names none.
    """

    exit_code = 1

    def __init__(self, *message: object, mend: object | None = None) -> None:
        super().__init__(*message)
        self._mend = mend

    @property
    def mend(self) -> object | None:
        """What would help: its own, else that of the error that it was raised from."""
        if self._mend is None and isinstance(self.__cause__, HmsegError):
            return self.__cause__.mend
        return self._mend

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy made by pickle has no cause: what would help goes with it.
        return type(self), self.args, self.__dict__ | {"_mend": self.mend}


class UserError(HmsegError, ValueError):
    """The user's mistake (bad argument, bad file, full disk); the programs exit with 2."""

    exit_code = 2


class WorkError(HmsegError, RuntimeError):
    """The work itself failed (parity, a regression, a lost device); the programs exit with 1."""

    exit_code = 1


class HmsegWarning(UserWarning):
    """Meant for a user, as the errors are: one clear line."""
