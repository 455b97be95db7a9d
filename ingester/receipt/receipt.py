"""What became of every file of a batch, and what of it is lacking.

    with receipt_of(reader, archive, BatchInSpool(spool, "CT1", "CD_4711")) as receipt:
        receipt.summary.is_complete
        for row in receipt.files(): ...        every file, in order of arrival
        for row in receipt.expected(): ...     everything that was expected

The spool is looked at before the index is asked: a file on its way is then seen in one
of the two at least, and a batch is never called complete too early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ingester.index.readers import Reader, Row
from ingester.index.words import explained
from ingester.receipt import matching
from ingester.receipt.expectation import Expectation
from ingester.receipt.lists import BadList
from ingester.receipt.summary import Measured, Summary, words_of
from ingester.receipt.waiting import BatchInSpool, Lying

_PAGE_ROWS = 1_000
_WHICH = {
    "all": "1",
    "lacking": "e.is_lacking",
    "not here": "(e.status = 'missing' OR e.arrival_id NOT IN"
    " (SELECT s.arrival_id FROM scratch.arrived AS s))",
}


@dataclass(slots=True)
class Receipt:
    """A batch compared with what was expected of it; valid within its `with` block."""

    reader: Reader
    summary: Summary
    _waiting: Sequence[Lying] = field(default_factory=list)

    def waiting(self) -> list[Row]:
        """Return the files that have no outcome yet."""
        temporary = {each.name for each in self._waiting if each.is_temporary}
        rows = self.reader.rows(
            "SELECT name FROM scratch.arrived WHERE outcome = 'waiting' ORDER BY name"
        )
        return [{"name": row["name"], "is_temporary": row["name"] in temporary} for row in rows]

    def files(self, where: str = "1") -> Iterator[Row]:
        """Yield every file of the batch that has its outcome, in order of arrival.

        *where* is a condition on `a`, a row of `arrivals`, or `s`, of `scratch.arrived`.
        """
        has_chains = bool(self.reader.rows("SELECT 1 FROM scratch.sent_back LIMIT 1"))
        for row in self._pages(
            "SELECT a.arrival_id, a.original_name, a.outcome, a.reason, a.size_bytes, a.sha256,"
            " a.arrived_at, a.finished_at, a.resolved_at, a.detail, i.sop_instance_uid, i.path,"
            " s.is_expected FROM scratch.arrived AS s"
            " JOIN main.arrivals AS a ON a.arrival_id = s.arrival_id AND s.outcome <> 'waiting'"
            " LEFT JOIN main.instances AS i ON i.instance_id = a.instance_id"
            f" WHERE s.arrival_id > ? AND ({where}) ORDER BY s.arrival_id LIMIT ?",
            ("",),
            lambda row: (row["arrival_id"],),
        ):
            row["explanation"] = explained(row)
            del row["detail"]
            if row["is_expected"] is not None:
                row["is_expected"] = bool(row["is_expected"])
            row["retried_from"] = self._chain(row["arrival_id"]) if has_chains else []
            yield row

    def expected(self, which: Literal["all", "lacking", "not here"] = "all") -> Iterator[Row]:
        """Yield what was expected, in the order of the lists, each with its `status`.

        Parameters
        ----------
        which : all of it, what is lacking, or what no file of this batch is
        """
        condition = _WHICH[which]
        for row in self._pages(
            "SELECT e.list, e.position, e.name, e.what, e.sop_instance_uid, e.sha256, e.status,"
            " e.is_lacking, e.arrival_id, a.source, a.batch, a.outcome, a.reason,"
            " a.original_name, i.path FROM scratch.expected AS e"
            " LEFT JOIN main.arrivals AS a ON a.arrival_id = e.arrival_id"
            " LEFT JOIN main.instances AS i ON i.instance_id = a.instance_id"
            f" WHERE (e.list, e.position) > (?, ?) AND {condition}"
            " ORDER BY e.list, e.position LIMIT ?",
            (-1, 0),
            lambda row: (row["list"], row["position"]),
        ):
            row["is_lacking"] = bool(row["is_lacking"])
            row["message"] = words_of(row)
            row["expected_by"] = self.summary.measured[row.pop("list")].name
            yield row

    def _chain(self, arrival_id: str) -> list[Row]:
        """Return the arrivals that were sent back and became this one, the latest first."""
        chain: list[Row] = []
        while found := self.reader.rows(
            "SELECT arrival_id, outcome, reason, finished_at FROM scratch.sent_back"
            " WHERE retried_as = ?",
            (chain[-1]["arrival_id"] if chain else arrival_id,),
        ):
            chain += found
        return chain

    def _pages(
        self, query: str, after: tuple[Any, ...], key: Callable[[Row], tuple[Any, ...]]
    ) -> Iterator[Row]:
        while page := self.reader.rows(query, (*after, _PAGE_ROWS)):
            after = key(page[-1])
            yield from page


@contextmanager
def receipt_of(
    reader: Reader,
    archive: Path,
    place: BatchInSpool,
    *,
    expect: Expectation | None = None,
    is_open: bool = False,
) -> Iterator[Receipt]:
    """Compare a batch with what was expected of it.

    Parameters
    ----------
    archive : the archive's folder, where DICOMDIRs are kept
    place : the batch, and where it waits
    expect : a list that somebody gives; else every DICOMDIR of the batch is one
    is_open : an association of this batch is open, more may come over it

    Raises
    ------
    BadList
        The list that was given cannot be understood.
    OSError
        It cannot be read.
    """
    waiting = [*place.lying(), *place.claimed()]
    with reader.with_scratch():
        matching.make_tables(reader.connection, place.source, place.batch, waiting)
        unreadable: list[str] = []
        if expect is not None:
            expectations = [expect]
            matching.put_expected(reader.connection, 0, expect.expected())
        else:
            expectations, unreadable = _put_directories(reader, archive, place)
        if expectations:
            matching.compare(reader.connection)
        summary = _summary(reader, place, expectations, waiting, unreadable, is_open=is_open)
        yield Receipt(reader, summary, waiting)


def _put_directories(
    reader: Reader, archive: Path, place: BatchInSpool
) -> tuple[list[Expectation], list[str]]:
    """Note what the DICOMDIRs of the batch name; those that cannot be read are told of."""
    expectations: list[Expectation] = []
    unreadable: list[str] = []
    for each in directories(reader, archive, place.source, place.batch):
        try:
            expected = list(each.expected())
        except BadList as error:
            unreadable.append(str(error))
        except OSError as error:
            unreadable.append(
                f"{each.name}: it is kept at {each.path} and cannot be read ({error.strerror})"
            )
        else:
            matching.put_expected(reader.connection, len(expectations), expected)
            expectations.append(each)
    return expectations, unreadable


def directories(reader: Reader, archive: Path, source: str, batch: str) -> list[Expectation]:
    """Return the DICOMDIRs that came with a batch; equal ones count once."""
    rows = reader.rows(
        "SELECT arrival_id, original_name, sha256 FROM arrivals WHERE source = ? AND batch = ?"
        " AND outcome = 'unpacked' AND detail LIKE '%\"kept_at\"%' ORDER BY arrival_id",
        (source, batch),
    )
    found: dict[str, Expectation] = {}
    for row in rows:
        path = archive / ".media" / row["arrival_id"] / "DICOMDIR"
        name = row["original_name"]
        each = Expectation("dicomdir", name, path, name.rpartition("/")[0])
        found.setdefault(row["sha256"] or row["arrival_id"], each)
    return list(found.values())


def _summary(
    reader: Reader,
    place: BatchInSpool,
    expectations: Sequence[Expectation],
    waiting: Sequence[Lying],
    unreadable: Sequence[str],
    *,
    is_open: bool,
) -> Summary:
    (arrived,) = reader.rows(
        "SELECT coalesce(sum(outcome = 'waiting'), 0) AS waiting,"
        " coalesce(sum(is_undecided), 0) AS undecided, sum(is_expected = 0) AS unexpected"
        " FROM scratch.arrived"
    )
    measured = tuple(_measured(reader, number, each) for number, each in enumerate(expectations))
    return Summary.of(
        place,
        reader.batch(place.source, place.batch),
        waiting=arrived["waiting"],
        temporary=sum(each.is_temporary for each in waiting),
        undecided=arrived["undecided"],
        unexpected=(arrived["unexpected"] or 0) if expectations else None,
        measured=measured,
        unreadable=unreadable,
        is_open=is_open,
    )


def _measured(reader: Reader, number: int, expectation: Expectation) -> Measured:
    rows = reader.rows(
        "SELECT status, count(*) AS n, sum(is_lacking) AS lacking FROM scratch.expected"
        " WHERE list = ? GROUP BY status",
        (number,),
    )
    return Measured(
        kind=expectation.kind,
        name=expectation.name,
        expected=sum(row["n"] for row in rows),
        statuses={row["status"]: row["n"] for row in rows},
        lacking=sum(row["lacking"] for row in rows),
    )
