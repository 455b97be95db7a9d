"""Comparing what was expected with what arrived, in a scratch database beside the index.

However long the lists are, nothing of them is held in memory: they go into tables, and
each rule of the comparison is one statement.  What a file is told by, in this order:

    SOP Instance UID   an object is there when the index has it, whoever brought it
    SHA-256            a file is there when its very bytes arrived
    name               only where a directory record has no UID, and for a hint
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from importlib import resources

from ingester.receipt.lists import Expected
from ingester.receipt.waiting import Lying

#: What an object's bytes ended as when they are in the archive.
STORED = "('archived', 'duplicate', 'variant', 'conflict')"

#: The status of something expected, by the outcome of the file that is it.
_STATUS = f"CASE WHEN outcome IN {STORED} THEN 'archived' ELSE outcome END"
#: Nothing is lacking where something is so; of a file in a list also these.
_THERE = "('archived', 'elsewhere')"
_NO_OBJECT = "('unpacked', 'foreign')"

_RANK = (
    f"CASE WHEN outcome IN {STORED} THEN 0 WHEN outcome = 'unpacked' THEN 1"
    " WHEN outcome = 'foreign' THEN 2 WHEN outcome = 'waiting' THEN 3"
    " WHEN outcome = 'quarantined' THEN 4 ELSE 5 END"
)
_VERSION_SUFFIX = re.compile(r";[0-9]+$")


def name_key(name: str, batch: str) -> str:
    """Return a file's name as every medium and system would spell it.

    ISO 9660 adds a version (`;1`) or a dot, some systems show it in lower case, and
    the batch's own name may or may not stand before it.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if len(parts) > 1 and parts[0] == batch:
        del parts[0]
    return "/".join(_VERSION_SUFFIX.sub("", part).rstrip(".").casefold() for part in parts)


def make_tables(
    connection: sqlite3.Connection, source: str, batch: str, waiting: Iterable[Lying]
) -> None:
    """Make the scratch tables and note every file of the batch."""
    script = resources.files("ingester.receipt").joinpath("tables.sql").read_text("utf-8")
    for statement in script.split(";\n\n"):
        connection.execute(statement)
    connection.create_function("name_key", 1, lambda name: name_key(name, batch))
    connection.execute(
        "INSERT INTO scratch.arrived (arrival_id, outcome, rank, is_undecided, sha256,"
        f" sop_instance_uid, name, name_key) SELECT a.arrival_id, a.outcome, {_RANK},"
        " a.outcome = 'quarantined' AND a.resolved_at IS NULL, a.sha256, i.sop_instance_uid,"
        " a.original_name, name_key(a.original_name)"
        " FROM main.arrivals AS a LEFT JOIN main.instances AS i USING (instance_id)"
        " WHERE a.source = ? AND a.batch = ? AND a.retried_as IS NULL",
        (source, batch),
    )
    for number, lying in enumerate(waiting):
        # What is claimed may have got its row since it was seen.
        connection.execute(
            "INSERT INTO scratch.arrived (arrival_id, outcome, rank, is_undecided, name, name_key)"
            " SELECT ?1, 'waiting', 3, 0, ?2, name_key(?2) WHERE NOT EXISTS"
            " (SELECT 1 FROM main.arrivals AS a WHERE a.arrival_id = ?1)",
            (lying.arrival_id or f"waiting {number}", lying.name),
        )
    _note_sent_back(connection, source, batch)
    for column in ("sha256", "sop_instance_uid", "name_key"):
        connection.execute(f"CREATE INDEX scratch.arrived_by_{column} ON arrived ({column})")


def _note_sent_back(connection: sqlite3.Connection, source: str, batch: str) -> None:
    """Note what `retry` sent back; what nobody has seen since still waits."""
    connection.execute(
        "INSERT INTO scratch.sent_back (retried_as, arrival_id, outcome, reason, finished_at)"
        " SELECT retried_as, arrival_id, outcome, reason, finished_at FROM main.arrivals"
        " WHERE source = ? AND batch = ? AND retried_as IS NOT NULL",
        (source, batch),
    )
    connection.execute(
        "INSERT OR IGNORE INTO scratch.arrived"
        " (arrival_id, outcome, rank, is_undecided, name, name_key)"
        " SELECT a.arrival_id, 'waiting', 3, 0, a.original_name, name_key(a.original_name)"
        " FROM scratch.sent_back AS s JOIN main.arrivals AS a ON a.arrival_id = s.arrival_id"
        " WHERE NOT EXISTS (SELECT 1 FROM main.arrivals AS b WHERE b.arrival_id = s.retried_as)"
        " AND NOT EXISTS (SELECT 1 FROM scratch.arrived AS w WHERE w.outcome = 'waiting'"
        "  AND w.name_key = name_key(a.original_name))"
    )


def put_expected(connection: sqlite3.Connection, number: int, expected: Iterable[Expected]) -> None:
    """Note what the list of this number names."""
    connection.executemany(
        "INSERT INTO scratch.expected (list, position, name, name_key, sop_instance_uid, sha256,"
        " what) VALUES (?1, ?2, ?3, name_key(?3), ?4, ?5, ?6)",
        (
            (number, each.position, each.name, each.sop_instance_uid, each.sha256, each.what)
            for each in expected
        ),
    )


def compare(connection: sqlite3.Connection) -> None:
    """Put what is expected beside what arrived, and say of each what became of it."""
    for column in ("sha256", "sop_instance_uid", "arrival_id"):
        connection.execute(f"CREATE INDEX scratch.expected_by_{column} ON expected ({column})")
    _by_this_batch(connection)
    _in_the_archive(connection)
    _take_status(connection, "rank > 2")
    _among_others(connection)
    _by_name(connection)
    connection.execute(
        "UPDATE scratch.expected SET status = coalesce(status, 'missing'), is_lacking ="
        f" coalesce(status, 'missing') NOT IN {_THERE} AND NOT"
        f" (sha256 IS NOT NULL AND coalesce(status, 'missing') IN {_NO_OBJECT})"
    )
    _not_expected(connection)


def _by_this_batch(connection: sqlite3.Connection) -> None:
    """Find what this very batch brought: by UID, by hash, and by name where there is neither."""
    for column, condition in (
        ("sop_instance_uid", "sop_instance_uid IS NOT NULL"),
        ("sha256", "sha256 IS NOT NULL"),
        ("name_key", "sop_instance_uid IS NULL AND sha256 IS NULL"),
    ):
        connection.execute(
            "UPDATE scratch.expected SET arrival_id = (SELECT a.arrival_id"
            f" FROM scratch.arrived AS a WHERE a.{column} = expected.{column}"
            f" ORDER BY a.rank, a.arrival_id LIMIT 1) WHERE {condition}"
        )
    _take_status(connection, "rank <= 2")


def _in_the_archive(connection: sqlite3.Connection) -> None:
    """Find the objects, and the very files, that the archive has from other batches."""
    for column in ("sop_instance_uid", "sha256"):
        connection.execute(
            "UPDATE scratch.expected SET status = 'elsewhere', arrival_id = (SELECT"
            " min(a.arrival_id) FROM main.instances AS i JOIN main.arrivals AS a"
            f"  ON a.instance_id = i.instance_id AND a.outcome IN {STORED}"
            f"  WHERE i.{column} = expected.{column})"
            f" WHERE status IS NULL AND {column} IS NOT NULL AND EXISTS"
            f" (SELECT 1 FROM main.instances AS i WHERE i.{column} = expected.{column})"
        )


def _among_others(connection: sqlite3.Connection) -> None:
    """Find bytes that are in no archived file, but came with another batch.

    A duplicate in another encoding, a foreign or quarantined file: one look at every
    arrival finds them all.
    """
    left = "SELECT sha256 FROM scratch.expected WHERE status IS NULL AND sha256 IS NOT NULL"
    if connection.execute(f"{left} LIMIT 1").fetchone() is None:
        return
    connection.execute(
        "CREATE TABLE scratch.others AS SELECT a.sha256, a.arrival_id, a.outcome,"
        f" {_RANK} AS rank FROM main.arrivals AS a"
        f" WHERE a.sha256 IN ({left}) AND a.retried_as IS NULL"
    )
    connection.execute("CREATE INDEX scratch.others_by_sha256 ON others (sha256, rank)")
    connection.execute(
        "UPDATE scratch.expected SET (status, arrival_id) ="
        " (SELECT CASE WHEN o.rank < 3 THEN 'elsewhere' ELSE o.outcome END, o.arrival_id"
        "  FROM scratch.others AS o WHERE o.sha256 = expected.sha256 ORDER BY o.rank LIMIT 1)"
        " WHERE status IS NULL AND sha256 IS NOT NULL"
    )


def _by_name(connection: sqlite3.Connection) -> None:
    """Find files of the same name: in quarantine or waiting they are what is lacking.

    One that was archived is another object, or has other contents; it is only a hint.
    """
    connection.execute(
        "UPDATE scratch.expected SET arrival_id = (SELECT a.arrival_id FROM scratch.arrived AS a"
        "  WHERE a.name_key = expected.name_key ORDER BY a.rank DESC, a.arrival_id LIMIT 1)"
        " WHERE status IS NULL AND name_key <> ''"
    )
    _take_status(connection, "rank > 1")


def _take_status(connection: sqlite3.Connection, condition: str) -> None:
    """Take the status from the file of this batch that was found, if *condition* holds of it."""
    connection.execute(
        f"UPDATE scratch.expected SET status = (SELECT {_STATUS} FROM scratch.arrived AS a"
        " WHERE a.arrival_id = expected.arrival_id) WHERE status IS NULL AND arrival_id IN"
        f" (SELECT arrival_id FROM scratch.arrived WHERE {condition})"
    )


def _not_expected(connection: sqlite3.Connection) -> None:
    """Note of each file whether it was expected; members of an expected archive file were."""
    connection.execute(
        "UPDATE scratch.arrived SET is_expected ="
        " EXISTS (SELECT 1 FROM scratch.expected AS e"
        "  WHERE e.arrival_id = arrived.arrival_id AND e.status <> 'missing')"
        " OR EXISTS (SELECT 1 FROM scratch.expected AS e WHERE e.sha256 = arrived.sha256)"
        " OR EXISTS (SELECT 1 FROM scratch.expected AS e"
        "  WHERE e.sop_instance_uid = arrived.sop_instance_uid)"
    )
    parent = "rtrim(rtrim(arrival_id, '0123456789'), '.')"
    while connection.execute(
        "UPDATE scratch.arrived SET is_expected = 1 WHERE NOT is_expected"
        f" AND arrival_id LIKE '%.%' AND {parent} IN (SELECT p.arrival_id"
        " FROM scratch.arrived AS p WHERE p.outcome = 'unpacked' AND p.is_expected)"
    ).rowcount:
        pass
    # A directory of objects, and a list of their UIDs, say nothing of other files.
    has_files = "EXISTS (SELECT 1 FROM scratch.expected WHERE sha256 IS NOT NULL)"
    connection.execute(
        "UPDATE scratch.arrived SET is_expected = NULL WHERE NOT is_expected AND"
        f" (outcome IN ('unpacked', 'waiting') OR (outcome = 'foreign' AND NOT {has_files}))"
    )
