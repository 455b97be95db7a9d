"""Whose fault it is: the file's (`Reject`), the world's (`Retry`) or ours (`Fatal`).

A `Reject` ends in quarantine with a reason; a `Retry` waits and tries again; a
`Fatal` stops the program with exit code 2.  Messages are sentences for people and
never hold a value from a header.
"""

from __future__ import annotations

from ingester.model import Reason, Refusal, type_json


class IngesterError(Exception):
    """The base of all errors that are ours to explain."""


class Reject(IngesterError):
    """The file cannot be archived, whoever tries and however often."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        may_grow: bool = False,
        detail: dict[str, type_json] | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.refusal = Refusal(reason, message, may_grow=may_grow, detail=detail or {})

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the refusal, so that the error crosses process borders whole."""
        return (_reject, (self.refusal,))


def _reject(refusal: Refusal) -> Reject:
    return Reject(refusal.reason, refusal.message, may_grow=refusal.may_grow, detail=refusal.detail)


class Retry(IngesterError):
    """The world is not as it should be (disk full, share gone): wait, try again."""


class Fatal(IngesterError):
    """The program cannot run like this: it stops with exit code 2 and this sentence."""
