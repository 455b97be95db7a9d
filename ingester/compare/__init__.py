"""Two versions of one SOP Instance UID, compared value by value.

The same study comes from a CD in explicit and from the network in implicit encoding:
that is not a thousand conflicts.  What is compared is what the elements say, with
encoding, group lengths, padding and File Meta aside.

    compare(CompareRequest(new_path, old_path))  →  Verdict
        same values                              duplicate
        same header, pixels in another syntax    variant
        anything else                            conflict, naming the keywords

Where the stored file is gone or damaged, the header that the index recorded stands in
for it: `compare_headers`.  Both are pure functions for the pool of processes.

    files      opens both, and says what the differences mean
    datasets   element by element, sequences item by item
    values     what one value says, however it is written
    bulk       long values, piece by piece
    headers    the recorded header, which is all there is of a lost file
"""

from ingester.compare.files import (
    CannotCompare,
    CheckRequest,
    CompareRequest,
    check,
    compare,
    is_other_syntax,
)
from ingester.compare.headers import HeaderRequest, compare_headers
from ingester.model import Outcome, Verdict

#: An object with more versions is compared with the current and the newest ones only,
#: lest whoever sends one UID for ever makes everybody wait.
MOST_COMPARED = 100

#: Two files that cannot be compared are both kept, which is what a conflict means.
NOBODY_CAN_TELL = Verdict(Outcome.CONFLICT, pixels_differ=None)

__all__ = [
    "MOST_COMPARED",
    "NOBODY_CAN_TELL",
    "CannotCompare",
    "CheckRequest",
    "CompareRequest",
    "HeaderRequest",
    "check",
    "compare",
    "compare_headers",
    "is_other_syntax",
]
