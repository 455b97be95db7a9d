"""Does anything of this batch still lie in the spool?  The folder is asked.

What the ingest has claimed it knows itself; here it is what nobody has looked at yet,
or what is still being written.
"""

from __future__ import annotations

from ingester.ignore import Ignore
from ingester.model import Origin
from ingester.receipt import BatchInSpool
from ingester.spool import Spool


def lies_in_spool(spool: Spool, origin: Origin) -> bool:
    """Return whether a file of *origin* (source, batch) lies in a drop folder.

    Of no batch are the files that lie in a drop folder itself.
    """
    source, batch = origin
    place = BatchInSpool(spool, source, batch or "")
    if batch is not None:
        # A folder that cannot be read may hold something.
        return next(place.lying(), None) is not None or bool(place.troubles)
    is_ignored = Ignore(spool.ignore)
    return any(
        (top / name).is_file() and not is_ignored(name)
        for top in place.tops()
        for name in place.names(top)
    )
