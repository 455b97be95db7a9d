-- The tables of one receipt, in a scratch database: what arrived, what was expected.
-- `rank` says which of several files of one name or hash tells most.

CREATE TABLE scratch.arrived (
    arrival_id TEXT PRIMARY KEY NOT NULL,
    outcome TEXT NOT NULL,                  -- as in arrivals, or 'waiting'
    rank INTEGER NOT NULL,
    is_undecided INTEGER NOT NULL,          -- in quarantine, and nobody has decided
    sha256 TEXT,
    sop_instance_uid TEXT,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,                 -- the name as media and systems may respell it
    is_expected INTEGER                     -- NULL where nothing is expected by name
) WITHOUT ROWID;

CREATE TABLE scratch.expected (
    list INTEGER NOT NULL,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    sop_instance_uid TEXT,
    sha256 TEXT,
    what TEXT NOT NULL,
    status TEXT,
    is_lacking INTEGER,
    arrival_id TEXT,                        -- of the file that the status is about
    PRIMARY KEY (list, position)
) WITHOUT ROWID;

CREATE TABLE scratch.sent_back (
    retried_as TEXT PRIMARY KEY NOT NULL,
    arrival_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT,
    finished_at TEXT NOT NULL
) WITHOUT ROWID;
