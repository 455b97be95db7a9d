-- The index as it was first made: the base that migrations.py builds on.
-- What the world may rely on is docs/contract; tables marked "ours" are not promised.
-- Dates are YYYY-MM-DD, times HH:MM:SS[.ffffff], our own moments UTC ISO 8601 with Z.

CREATE TABLE patients (
    patient_key INTEGER PRIMARY KEY,
    patient_id TEXT,
    issuer_of_patient_id TEXT,
    patient_name TEXT,                      -- as the first instance wrote it
    patient_name_folded TEXT,               -- ASCII, lower case, all component groups
    patient_name_normalised TEXT NOT NULL,  -- what identity compares; ours
    patient_birth_date TEXT,
    patient_sex TEXT
);
-- Identity: an absent part equals an absent part, so NULL becomes ''.
CREATE UNIQUE INDEX patients_by_identity ON patients (
    coalesce(patient_id, ''), coalesce(issuer_of_patient_id, ''),
    patient_name_normalised, coalesce(patient_birth_date, '')
);
CREATE INDEX patients_by_patient_id ON patients (patient_id);

CREATE TABLE studies (
    study_instance_uid TEXT PRIMARY KEY NOT NULL,
    patient_key INTEGER NOT NULL REFERENCES patients,
    study_date TEXT,
    study_time TEXT,
    study_id TEXT,
    accession_number TEXT,
    study_description TEXT,
    referring_physician_name TEXT,
    institution_name TEXT,
    first_archived_at TEXT NOT NULL,
    last_archived_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX studies_by_patient ON studies (patient_key);
CREATE INDEX studies_by_study_date ON studies (study_date);
CREATE INDEX studies_by_accession_number ON studies (accession_number);
CREATE INDEX studies_by_last_archived_at ON studies (last_archived_at);

CREATE TABLE series (
    series_instance_uid TEXT PRIMARY KEY NOT NULL,
    study_instance_uid TEXT NOT NULL REFERENCES studies,
    modality TEXT,
    series_number INTEGER,
    series_date TEXT,
    series_time TEXT,
    series_description TEXT,
    body_part_examined TEXT,
    protocol_name TEXT,
    manufacturer TEXT,
    manufacturer_model_name TEXT,
    station_name TEXT,
    frame_of_reference_uid TEXT
) WITHOUT ROWID;
CREATE INDEX series_by_study ON series (study_instance_uid);

CREATE TABLE instances (
    instance_id INTEGER PRIMARY KEY,
    sop_instance_uid TEXT NOT NULL,
    series_instance_uid TEXT NOT NULL REFERENCES series,
    study_instance_uid TEXT NOT NULL REFERENCES studies,
    sop_class_uid TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    instance_number INTEGER,
    number_of_frames INTEGER,
    rows INTEGER,
    columns INTEGER,
    samples_per_pixel INTEGER,
    bits_allocated INTEGER,
    bits_stored INTEGER,
    photometric_interpretation TEXT,
    source TEXT NOT NULL,
    path TEXT NOT NULL UNIQUE,
    size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    data_set_sha256 TEXT NOT NULL,
    archived_at TEXT NOT NULL,
    version TEXT NOT NULL CHECK (version IN ('current', 'variant', 'conflict'))
);
-- Answers "which versions of this UID are there?" and lets only one be current.
CREATE UNIQUE INDEX instances_by_sop_instance_uid ON instances (
    sop_instance_uid, CASE version WHEN 'current' THEN '' ELSE path END
);
CREATE INDEX instances_by_study ON instances (study_instance_uid);
CREATE INDEX instances_by_series ON instances (series_instance_uid);
CREATE INDEX instances_by_sha256 ON instances (sha256);
CREATE INDEX instances_by_archived_at ON instances (archived_at);

CREATE TABLE headers (
    instance_id INTEGER PRIMARY KEY REFERENCES instances,
    attributes TEXT NOT NULL
);

CREATE TABLE arrivals (
    arrival_id TEXT PRIMARY KEY NOT NULL,
    source TEXT NOT NULL,
    batch TEXT,
    original_name TEXT NOT NULL,
    arrived_at TEXT NOT NULL,
    finished_at TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 TEXT,
    outcome TEXT NOT NULL CHECK (outcome IN ('archived', 'duplicate', 'variant', 'conflict',
        'quarantined', 'foreign', 'unpacked', 'discarded')),
    reason TEXT,
    detail TEXT,
    message TEXT,                           -- what a person may have to know; ours
    instance_id INTEGER REFERENCES instances,
    retried_as TEXT,
    resolved_at TEXT
);
CREATE INDEX arrivals_by_batch ON arrivals (source, batch);
CREATE INDEX arrivals_by_instance ON arrivals (instance_id);
CREATE INDEX arrivals_by_finished_at ON arrivals (finished_at);
-- Few rows each, and asked for at every `status`.
CREATE INDEX arrivals_quarantined ON arrivals (arrival_id) WHERE outcome = 'quarantined';
CREATE INDEX arrivals_foreign ON arrivals (arrival_id) WHERE outcome = 'foreign';
CREATE INDEX arrivals_in_conflict ON arrivals (arrival_id) WHERE outcome = 'conflict';

CREATE TABLE derivatives (
    instance_id INTEGER NOT NULL REFERENCES instances,
    kind TEXT NOT NULL CHECK (kind IN ('thumbnail', 'video')),
    status TEXT NOT NULL CHECK (status IN ('made', 'skipped', 'failed')),
    reason TEXT,
    path TEXT,
    pipeline_version INTEGER NOT NULL,
    made_at TEXT NOT NULL,
    detail TEXT,
    fps REAL,                               -- as in detail, for views without JSON; ours
    PRIMARY KEY (instance_id, kind)
) WITHOUT ROWID;
CREATE INDEX derivatives_by_kind ON derivatives (kind, instance_id, pipeline_version);
CREATE INDEX derivatives_failed ON derivatives (instance_id) WHERE status = 'failed';

CREATE TABLE events (
    event_id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    kind TEXT NOT NULL,
    study_instance_uid TEXT,
    detail TEXT
);
CREATE INDEX events_by_study ON events (study_instance_uid, kind);
CREATE INDEX events_by_kind ON events (kind, event_id);

-- Ours: where instances of one study or series disagree about what should be one fact.
-- `level` is patient, study or series; `uid` of the series, else of the study; `attribute`
-- a column name; `value` what the later one said where that is about the patient, else ''.
CREATE TABLE contradictions (
    level TEXT NOT NULL CHECK (level IN ('patient', 'study', 'series')),
    uid TEXT NOT NULL,
    attribute TEXT NOT NULL,
    value TEXT NOT NULL,
    instance_id INTEGER NOT NULL REFERENCES instances,
    at TEXT NOT NULL,
    resolved_at TEXT,
    PRIMARY KEY (level, uid, attribute, value)
) WITHOUT ROWID;
CREATE INDEX contradictions_unresolved ON contradictions (at) WHERE resolved_at IS NULL;

-- Ours: what a person decided, and when.
CREATE TABLE resolutions (
    resolution_id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('accept', 'make-current', 'discard')),
    arrival_id TEXT,
    study_instance_uid TEXT,
    path TEXT,                              -- of the version made current
    note TEXT
);

-- Ours: how often a claim was tried that took its reader, or the service, down with it.
CREATE TABLE claim_attempts (
    arrival_id TEXT PRIMARY KEY NOT NULL,
    attempts INTEGER NOT NULL
) WITHOUT ROWID;

-- Ours: the columns of `instances` that `[index] columns` asked for.
CREATE TABLE promoted_columns (
    keyword TEXT PRIMARY KEY NOT NULL,
    column_name TEXT NOT NULL UNIQUE
) WITHOUT ROWID;
