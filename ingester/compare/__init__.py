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

from ingester.compare.files import CannotCompare, CompareRequest, compare
from ingester.compare.headers import HeaderRequest, compare_headers

__all__ = [
    "CannotCompare",
    "CompareRequest",
    "HeaderRequest",
    "compare",
    "compare_headers",
]
