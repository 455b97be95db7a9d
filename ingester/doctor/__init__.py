"""What is wrong with this machine or this configuration, and the fix in one line each.

Each check is given values and returns what it found; where something must be tried (a
drop, a decoder), that happens in a process apart and leaves nothing behind.  Which
checks there are, and in which order, stands in `cli.doctor`.
"""

from ingester.doctor.findings import Check, State

__all__ = ["Check", "State"]
