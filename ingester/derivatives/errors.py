"""Why a picture could not be made: a reason of the contract and a sentence."""

from __future__ import annotations

from ingester.errors import IngesterError
from ingester.model import DerivativeReason


class DecodeError(IngesterError):
    """The pixels cannot be shown, for a reason that another attempt will not change."""

    def __init__(self, reason: DerivativeReason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by reason and message, so that it crosses process borders whole."""
        return (DecodeError, (self.reason, self.message))
