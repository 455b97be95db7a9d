-- Counts kept while rows come, so that a list of studies, of batches or of days does not
-- read a million rows.  Triggers write them, within the same transaction.  They say nothing
-- that instances and arrivals do not say: `counts.py` makes them anew, and `verify` compares.
-- Rows of instances and arrivals are never deleted, so there are no triggers for that.

-- Ours: what lies in each folder of each series.
CREATE TABLE series_folders (
    study_instance_uid TEXT NOT NULL,
    series_instance_uid TEXT NOT NULL,
    folder TEXT NOT NULL,                   -- relative to the archive
    source TEXT NOT NULL,
    instance_count INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (study_instance_uid, series_instance_uid, folder)
) WITHOUT ROWID;
CREATE INDEX series_folders_by_series ON series_folders (series_instance_uid);

-- rtrim(path, <every character of path but '/'>) leaves the folder and its slash.
CREATE TRIGGER series_folders_gain AFTER INSERT ON instances BEGIN
    INSERT INTO series_folders VALUES (
        NEW.study_instance_uid, NEW.series_instance_uid,
        rtrim(rtrim(NEW.path, replace(NEW.path, '/', '')), '/'), NEW.source, 1, NEW.size_bytes
    )
    ON CONFLICT (study_instance_uid, series_instance_uid, folder) DO UPDATE SET
        instance_count = instance_count + 1,
        size_bytes = size_bytes + excluded.size_bytes;
END;

-- Ours: what became of the arrivals of each source and batch ('' for none), by quarters of
-- an hour: every time zone differs from UTC by some number of those, so days of any zone
-- can be put together from them.  An arrival that was retried counts as what became of the
-- retry, which is an arrival of its own.
CREATE TABLE arrival_counts (
    source TEXT NOT NULL,
    batch TEXT NOT NULL,
    quarter TEXT NOT NULL,                  -- YYYY-MM-DDTHH:MM, when it begins, UTC
    first_arrived_at TEXT NOT NULL,
    last_finished_at TEXT NOT NULL,
    arrived INTEGER NOT NULL,
    archived INTEGER NOT NULL,
    duplicate INTEGER NOT NULL,
    variant INTEGER NOT NULL,
    conflict INTEGER NOT NULL,
    quarantined INTEGER NOT NULL,
    "foreign" INTEGER NOT NULL,
    unpacked INTEGER NOT NULL,
    discarded INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (source, batch, quarter)
) WITHOUT ROWID;
CREATE INDEX arrival_counts_by_batch ON arrival_counts (batch);

CREATE TRIGGER arrival_counts_gain AFTER INSERT ON arrivals BEGIN
    INSERT INTO arrival_counts VALUES (
        NEW.source, coalesce(NEW.batch, ''),
        substr(NEW.arrived_at, 1, 14) || printf('%02d', substr(NEW.arrived_at, 15, 2) / 15 * 15),
        NEW.arrived_at, NEW.finished_at, NEW.retried_as IS NULL,
        NEW.retried_as IS NULL AND NEW.outcome = 'archived',
        NEW.retried_as IS NULL AND NEW.outcome = 'duplicate',
        NEW.retried_as IS NULL AND NEW.outcome = 'variant',
        NEW.retried_as IS NULL AND NEW.outcome = 'conflict',
        NEW.retried_as IS NULL AND NEW.outcome = 'quarantined',
        NEW.retried_as IS NULL AND NEW.outcome = 'foreign',
        NEW.retried_as IS NULL AND NEW.outcome = 'unpacked',
        NEW.retried_as IS NULL AND NEW.outcome = 'discarded',
        NEW.size_bytes * (NEW.retried_as IS NULL)
    )
    ON CONFLICT (source, batch, quarter) DO UPDATE SET
        first_arrived_at = min(first_arrived_at, excluded.first_arrived_at),
        last_finished_at = max(last_finished_at, excluded.last_finished_at),
        arrived = arrived + excluded.arrived,
        archived = archived + excluded.archived,
        duplicate = duplicate + excluded.duplicate,
        variant = variant + excluded.variant,
        conflict = conflict + excluded.conflict,
        quarantined = quarantined + excluded.quarantined,
        "foreign" = "foreign" + excluded."foreign",
        unpacked = unpacked + excluded.unpacked,
        discarded = discarded + excluded.discarded,
        size_bytes = size_bytes + excluded.size_bytes;
END;
-- A person's decision, or a retry; nothing else of an arrival ever changes.
CREATE TRIGGER arrival_counts_change AFTER UPDATE OF outcome, retried_as ON arrivals BEGIN
    UPDATE arrival_counts SET
        arrived = arrived + (NEW.retried_as IS NULL) - (OLD.retried_as IS NULL),
        archived = archived + (NEW.retried_as IS NULL AND NEW.outcome = 'archived')
            - (OLD.retried_as IS NULL AND OLD.outcome = 'archived'),
        duplicate = duplicate + (NEW.retried_as IS NULL AND NEW.outcome = 'duplicate')
            - (OLD.retried_as IS NULL AND OLD.outcome = 'duplicate'),
        variant = variant + (NEW.retried_as IS NULL AND NEW.outcome = 'variant')
            - (OLD.retried_as IS NULL AND OLD.outcome = 'variant'),
        conflict = conflict + (NEW.retried_as IS NULL AND NEW.outcome = 'conflict')
            - (OLD.retried_as IS NULL AND OLD.outcome = 'conflict'),
        quarantined = quarantined + (NEW.retried_as IS NULL AND NEW.outcome = 'quarantined')
            - (OLD.retried_as IS NULL AND OLD.outcome = 'quarantined'),
        "foreign" = "foreign" + (NEW.retried_as IS NULL AND NEW.outcome = 'foreign')
            - (OLD.retried_as IS NULL AND OLD.outcome = 'foreign'),
        unpacked = unpacked + (NEW.retried_as IS NULL AND NEW.outcome = 'unpacked')
            - (OLD.retried_as IS NULL AND OLD.outcome = 'unpacked'),
        discarded = discarded + (NEW.retried_as IS NULL AND NEW.outcome = 'discarded')
            - (OLD.retried_as IS NULL AND OLD.outcome = 'discarded'),
        size_bytes = size_bytes
            + NEW.size_bytes * ((NEW.retried_as IS NULL) - (OLD.retried_as IS NULL))
    WHERE source = NEW.source AND batch = coalesce(NEW.batch, '') AND quarter
        = substr(NEW.arrived_at, 1, 14) || printf('%02d', substr(NEW.arrived_at, 15, 2) / 15 * 15);
END;

-- "Is all of this batch there?" names the batch, and rarely the source.
DROP INDEX arrivals_by_batch;
CREATE INDEX arrivals_by_batch ON arrivals (batch, source);
CREATE INDEX arrivals_by_arrived_at ON arrivals (arrived_at);
-- The size makes growth over time a question for this index alone.
DROP INDEX instances_by_archived_at;
CREATE INDEX instances_by_archived_at ON instances (archived_at, size_bytes);
-- The modality, lest a word that may be one reads every series.
CREATE INDEX series_by_modality ON series (modality, study_instance_uid);

-- How large tables are and how many rows one value finds: what `ANALYZE` would measure in
-- an archive of a million objects.  Told beforehand, it lets SQLite choose the same plans
-- from the first row on; without it, every table is thought to be as large as any other.
ANALYZE sqlite_master;
DELETE FROM sqlite_stat1;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('patients', 'patients_by_identity', '8000 2 2 1 1'),
    ('patients', 'patients_by_patient_id', '8000 2'),
    ('studies', 'studies', '20000 1'),
    ('studies', 'studies_by_patient', '20000 3'),
    ('studies', 'studies_by_study_date', '20000 20'),
    ('studies', 'studies_by_accession_number', '20000 2'),
    ('studies', 'studies_by_last_archived_at', '20000 1'),
    ('series', 'series', '80000 1'),
    ('series', 'series_by_study', '80000 4'),
    ('series', 'series_by_modality', '80000 8000 2'),
    ('instances', 'instances_by_sop_instance_uid', '1000000 1 1'),
    ('instances', 'sqlite_autoindex_instances_1', '1000000 1'),
    ('instances', 'instances_by_study', '1000000 50'),
    ('instances', 'instances_by_series', '1000000 13'),
    ('instances', 'instances_by_sha256', '1000000 1'),
    ('instances', 'instances_by_archived_at', '1000000 2 1'),
    ('headers', NULL, '1000000'),
    ('arrivals', 'sqlite_autoindex_arrivals_1', '1000000 1'),
    ('arrivals', 'arrivals_by_batch', '1000000 60 60'),
    ('arrivals', 'arrivals_by_arrived_at', '1000000 1'),
    ('arrivals', 'arrivals_by_finished_at', '1000000 2'),
    ('arrivals', 'arrivals_by_instance', '1000000 2'),
    ('arrivals', 'arrivals_quarantined', '1000 1'),
    ('arrivals', 'arrivals_foreign', '2000 1'),
    ('arrivals', 'arrivals_in_conflict', '1000 1'),
    ('derivatives', 'derivatives', '2000000 2 1'),
    ('derivatives', 'derivatives_by_kind', '2000000 1000000 1 1'),
    ('derivatives', 'derivatives_failed', '2000 1'),
    ('events', 'events_by_study', '40000 2 1'),
    ('events', 'events_by_kind', '40000 8000 1'),
    ('series_folders', 'series_folders', '80000 4 1 1'),
    ('series_folders', 'series_folders_by_series', '80000 1'),
    ('arrival_counts', 'arrival_counts', '30000 2000 2 1'),
    ('arrival_counts', 'arrival_counts_by_batch', '30000 2');
-- Read by whoever opens the index from now on, and here at once.
ANALYZE sqlite_master;
