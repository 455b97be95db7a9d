"""Archive against index: comparing them, mending one by the other, starting again.

`verify` only reads and names what does not agree.  `repair` does what can be done
about it without losing a byte.  `rebuild` makes the index again from the tree alone.
"""

from ingester.check.differences import Difference, compared
from ingester.check.findings import Finding, FindingKind, Findings
from ingester.check.rebuild import Rebuilt, rebuild
from ingester.check.repair import Repaired, repair
from ingester.check.verify import Part, verify

__all__ = [
    "Difference",
    "Finding",
    "FindingKind",
    "Findings",
    "Part",
    "Rebuilt",
    "Repaired",
    "compared",
    "rebuild",
    "repair",
    "verify",
]
