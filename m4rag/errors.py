"""What can go wrong, in the user's terms.

Every error says *what* happened, *where* (a file, a row, an address) and the *remedy*. The command line
prints it as one line on stderr and leaves with the class's exit code; nothing else in the package exits.
"""

from __future__ import annotations

from typing import ClassVar


class M4ragError(Exception):
    """Base of all errors that a user can act on.

    Args:
        what: What went wrong, with the offending value.
        where: The file, row, address or setting it concerns.
        remedy: What to do about it, as an imperative sentence.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        if self.remedy is not None:
            text = f"{text.rstrip('.')}. {self.remedy}"
        return " ".join(text.split())


class CheckFailed(M4ragError):
    """A verification ran and its answer is no (exit 1)."""

    exit_code = 1


class UsageError(M4ragError):
    """The command or a setting asks for something that makes no sense (exit 2)."""

    exit_code = 2


class Unavailable(M4ragError):
    """A dependency or service is missing, unreachable or lacks a capability (exit 3)."""

    exit_code = 3


class BadData(M4ragError):
    """Input that breaks its contract (exit 4)."""

    exit_code = 4
