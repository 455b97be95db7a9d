"""What the ingest asks of other processes: small picklable questions and answers.

Reading several small files in one question spares most of the cost of crossing
the process border, which would otherwise exceed the cost of reading them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingester.errors import Retry
from ingester.model import Prepared
from ingester.prepare import PrepareRequest, prepare

#: What the reading of one file gave: an error of the file, or of the world, in its place.
Answer = Prepared | OSError | Retry


def is_alive() -> bool:
    """Answer, which only a process that came up can."""
    return True


def prepare_many(requests: Sequence[PrepareRequest]) -> list[Answer]:
    """Read several claimed files; an error of one file stands in its place."""
    answers: list[Answer] = []
    for request in requests:
        try:
            answers.append(prepare(request))
        except Retry as error:
            answers.append(error)
        except OSError as error:
            # Without its file name: that may identify a patient, and it is in our hands.
            answers.append(OSError(error.errno, error.strerror))
    return answers
