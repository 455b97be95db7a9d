"""Did everything of a batch get in?  What became of each file, and what is missing.

A receipt compares a batch with what ought to have come: the DICOMDIRs that came with
it, or a list that somebody gives.  It only reads, with and without a running service.
"""

from ingester.receipt.expectation import Expectation, given
from ingester.receipt.lists import BadList
from ingester.receipt.receipt import Receipt, receipt_of
from ingester.receipt.summary import OUTCOMES, STATUSES, Summary
from ingester.receipt.waiting import BatchInSpool, Lying, sources_in_spool

__all__ = [
    "OUTCOMES",
    "STATUSES",
    "BadList",
    "BatchInSpool",
    "Expectation",
    "Lying",
    "Receipt",
    "Summary",
    "given",
    "receipt_of",
    "sources_in_spool",
]
