"""Bringing files from elsewhere into the spool, whole and durable, by copy.

Used by `ingester import`.  Each file is copied to `.receiving/<id>`, flushed, and
renamed to where a file with a known source, batch and id waits (`spool.handed_over`),
so that the spool never sees half a file and a crash in between loses nothing: the
original is only taken away, where that is asked for, once its outcome is known.

    for found in walk(paths, is_ignored, ...):
        listing.append(found)                        what is there, litter left out
    with Handover(spool_root, source, clock) as handover:
        handover.make_sure_of_room(size)             before the first is copied
        for found in listing:
            handed = handover.bring(found)           copied
        handover.flush()                             renamed, durable: the spool has them
"""

from ingester.handover.copying import Handed, Handover, take_away
from ingester.handover.listing import CannotRead, Found, Scroll, is_foreign, walk

__all__ = [
    "CannotRead",
    "Found",
    "Handed",
    "Handover",
    "Scroll",
    "is_foreign",
    "take_away",
    "walk",
]
