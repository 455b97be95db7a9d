"""What commands may ask of a site, whether a service runs on it or not.

Each answer is a function of the open site and the question's arguments, run on the
thread that owns the writer: by the service's loop for a question that came over the
control socket, else by the command itself under the locks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ingester.archive import Archive
from ingester.config import Settings
from ingester.control import Document, Refused
from ingester.index.decisions import Wish
from ingester.index.writer import Writer
from ingester.ingest.returning import send_back
from ingester.model import Clock, Kind, Reason, moment, type_json
from ingester.quarantine import discard
from ingester.service import rooms
from ingester.spool import Spool

if TYPE_CHECKING:
    from ingester.check import Finding

_PART = 256


def _nothing() -> None:
    """Do nothing: nobody else waits."""


@dataclass(frozen=True, slots=True)
class OpenSite:
    """What the answers work on; all of it belongs to the calling thread."""

    spool: Spool
    archive: Archive
    writer: Writer
    clock: Clock
    settings: Settings
    meanwhile: Callable[[], None] = _nothing  # called between parts of a long answer


def retry(site: OpenSite, arguments: Document) -> Document:
    """Send quarantined files back: `ids`, or all of them, or those of a `reason`."""
    ids = _texts(arguments, "ids")
    reason = arguments.get("reason")
    if reason is not None and reason not in set(Reason):
        raise Refused(f"there is no reason {reason}; the reasons are: {', '.join(Reason)}")
    if arguments.get("all") or (reason is not None and not ids):
        is_meant = _by_reason(reason)
        ids = [each for each, why in site.writer.set_aside() if is_meant(Reason(why))]
    done = send_back(site.spool, site.writer, ids, site.clock, meanwhile=site.meanwhile)
    return {
        "retried": [{"arrival_id": old, "retried_as": new} for old, new in done.retried],
        "failed": [{"arrival_id": text, "message": why} for text, why in done.failed],
    }


def _by_reason(reason: object) -> Callable[[Reason], bool]:
    """Return what `--all` means: not what is no DICOM, unless that is asked for."""
    if reason is not None:
        return lambda found: found == reason
    return lambda found: found not in (Reason.NOT_DICOM, Reason.EMPTY)


def resolve(site: OpenSite, arguments: Document) -> Document:
    """Record a person's decision on quarantined files, conflicts, contradictions.

    `ids` name arrivals or objects, `study` a study; `by` is the person's login name.
    """
    wish: Wish = "accept"
    if arguments.get("discard"):
        wish = "discard"
    elif arguments.get("make_current"):
        wish = "make-current"
    defaults = rooms.source_defaults(site.settings)
    decided = site.writer.resolve(
        _texts(arguments, "ids"),
        decision=wish,
        at=moment(site.clock.now()),
        by=arguments.get("by"),
        note=arguments.get("note"),
        study_instance_uid=arguments.get("study"),
        issuer_of=lambda source: defaults(source)[1],
    )
    stay: list[str] = []
    if wish == "discard":
        # The row first: a crash in between leaves a file that nobody wants, which the next
        # start removes; the other order would lose a file without a decision.
        for number, arrival_id in enumerate([*decided.settled, *decided.settled_before]):
            stay += discard(site.spool, arrival_id)
            if number % _PART == _PART - 1:
                site.meanwhile()
    return {
        "resolved": decided.settled,
        "resolved_before": decided.settled_before,
        "studies": decided.studies,
        "studies_before": decided.studies_before,
        "failed": [{"id": text, "message": why} for text, why in decided.failed],
        "stay": stay,
    }


def derive(site: OpenSite, arguments: Document) -> Document:
    """Have derivatives made again: `which` is missing, failed or all; perhaps one `kind`."""
    which = arguments.get("which", "missing")
    try:
        kind = None if arguments.get("kind") is None else Kind(arguments["kind"])
    except ValueError:
        raise Refused("a derivative's kind is thumbnail or video") from None
    forgotten = 0
    if which in ("failed", "all"):
        forgotten = site.writer.forget_derivatives(kind, which)
    elif which != "missing":
        raise Refused("say which derivatives: missing, failed or all")
    return {"forgotten": forgotten}


def repair(site: OpenSite, arguments: Document) -> Document:
    """Mend the `findings` of a check: a list of objects with kind, path and message."""
    from ingester.check import repair as mend  # seldom asked for, and long to import

    findings = [_finding(each) for each in arguments.get("findings") or []]
    mended: list[Finding] = []
    left: list[Finding] = []
    for start in range(0, len(findings), _PART):
        told = mend(
            findings[start : start + _PART],
            site.archive.root,
            site.writer,
            spool=site.spool.root,
            defaults=rooms.source_defaults(site.settings),
            limits=rooms.ingest_settings(site.settings, is_impatient=True).limits,
        )
        mended += told.mended
        left += told.left
        site.meanwhile()
    return {"mended": [asdict(each) for each in mended], "left": [asdict(each) for each in left]}


def _finding(told: type_json) -> Finding:
    """Read a finding; its path may not lead out of the site."""
    from ingester.check import Finding, FindingKind

    try:
        found = Finding(FindingKind(told["kind"]), str(told["path"]), str(told["message"]))
    except (TypeError, KeyError, ValueError):
        raise Refused("a finding has a kind, a path and a message") from None
    if PurePosixPath(found.path).is_absolute() or ".." in PurePosixPath(found.path).parts:
        raise Refused("the path of a finding lies in the archive or in the spool")
    if found.kind is FindingKind.LEFTOVER and not found.path.startswith(".staging/"):
        raise Refused("leftovers lie in the archive's .staging")
    return found


#: The questions that need nothing but the open site.
ANSWERS: dict[str, Callable[[OpenSite, Document], Document]] = {
    "retry": retry,
    "resolve": resolve,
    "derive": derive,
    "repair": repair,
}


def _texts(arguments: Document, name: str) -> list[str]:
    found: Sequence[object] = arguments.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise Refused(f"{name} must be a list of texts")
    return [str(each) for each in found]
