-- The views, dropped and made anew whenever this text changes.
-- Nothing here is newer than SQLite 3.31: old viewers must be able to open the index.
-- No JSON functions either: some viewers lack them, and before SQLite 3.41 a connection
-- with `trusted_schema = OFF` refuses them in views.
-- `images` takes instances.*, so that promoted columns appear in it by themselves.

CREATE VIEW images AS
SELECT
    instances.*,
    series.modality, series.series_number, series.series_date, series.series_time,
    series.series_description, series.body_part_examined, series.protocol_name,
    series.manufacturer, series.manufacturer_model_name, series.station_name,
    series.frame_of_reference_uid,
    studies.study_date, studies.study_time, studies.study_id, studies.accession_number,
    studies.study_description, studies.referring_physician_name, studies.institution_name,
    studies.first_archived_at, studies.last_archived_at,
    patients.patient_key, patients.patient_id, patients.issuer_of_patient_id,
    patients.patient_name, patients.patient_name_folded, patients.patient_birth_date,
    patients.patient_sex,
    -- Subqueries cost nothing where nobody asks for them; joins would, with every row.
    (SELECT d.path FROM derivatives AS d WHERE d.instance_id = instances.instance_id
        AND d.kind = 'thumbnail') AS thumbnail_path,
    (SELECT d.path FROM derivatives AS d WHERE d.instance_id = instances.instance_id
        AND d.kind = 'video') AS video_path,
    (SELECT d.fps FROM derivatives AS d WHERE d.instance_id = instances.instance_id
        AND d.kind = 'video') AS fps
FROM instances
JOIN series ON series.series_instance_uid = instances.series_instance_uid
JOIN studies ON studies.study_instance_uid = instances.study_instance_uid
JOIN patients ON patients.patient_key = studies.patient_key;

CREATE VIEW study_list AS
SELECT
    studies.study_instance_uid, studies.patient_key, studies.study_date, studies.study_time,
    studies.study_id, studies.accession_number, studies.study_description,
    studies.referring_physician_name, studies.institution_name,
    studies.first_archived_at, studies.last_archived_at,
    patients.patient_id, patients.issuer_of_patient_id, patients.patient_name,
    patients.patient_name_folded, patients.patient_birth_date, patients.patient_sex,
    (SELECT count(DISTINCT f.series_instance_uid) FROM series_folders AS f
        WHERE f.study_instance_uid = studies.study_instance_uid) AS series_count,
    (SELECT coalesce(sum(f.instance_count), 0) FROM series_folders AS f
        WHERE f.study_instance_uid = studies.study_instance_uid) AS instance_count,
    (SELECT sum(f.size_bytes) FROM series_folders AS f
        WHERE f.study_instance_uid = studies.study_instance_uid) AS size_bytes,
    (SELECT group_concat(modality, ',') FROM (
        SELECT DISTINCT s.modality AS modality FROM series_folders AS f
        JOIN series AS s ON s.series_instance_uid = f.series_instance_uid
        WHERE f.study_instance_uid = studies.study_instance_uid AND s.modality IS NOT NULL
        ORDER BY 1)) AS modalities,
    (SELECT group_concat(source, ',') FROM (
        SELECT DISTINCT f.source AS source FROM series_folders AS f
        WHERE f.study_instance_uid = studies.study_instance_uid
        ORDER BY 1)) AS sources,
    (SELECT group_concat(folder, ',') FROM (
        SELECT DISTINCT f.folder AS folder FROM series_folders AS f
        WHERE f.study_instance_uid = studies.study_instance_uid
        ORDER BY 1)) AS folders
FROM studies
JOIN patients ON patients.patient_key = studies.patient_key;

-- An arrival that was retried counts once: as what became of the retry.
CREATE VIEW batches AS
SELECT
    source,
    batch,
    min(first_arrived_at) AS first_arrived_at,
    max(last_finished_at) AS last_finished_at,
    sum(arrived) AS arrived,
    sum(archived) AS archived,
    sum(duplicate) AS duplicate,
    sum(variant) AS variant,
    sum(conflict) AS conflict,
    sum(quarantined) AS quarantined,
    sum("foreign") AS "foreign",
    sum(unpacked) AS unpacked,
    sum(discarded) AS discarded,
    sum(size_bytes) AS size_bytes
FROM arrival_counts
WHERE batch <> ''
GROUP BY source, batch
HAVING sum(arrived) > 0;

-- Days as the clock on the wall has them, by arrival.
CREATE VIEW arrivals_by_day AS
SELECT
    date(quarter, 'localtime') AS day,
    source,
    sum(arrived) AS arrived,
    sum(archived) AS archived,
    sum(duplicate) AS duplicate,
    sum(variant) AS variant,
    sum(conflict) AS conflict,
    sum(quarantined) AS quarantined,
    sum("foreign") AS "foreign",
    sum(unpacked) AS unpacked,
    sum(discarded) AS discarded,
    sum(size_bytes) AS size_bytes
FROM arrival_counts
GROUP BY 1, 2
HAVING sum(arrived) > 0;

-- Each message ends with the command to use next.
CREATE VIEW problems AS
SELECT
    'quarantined' AS kind, a.finished_at AS at, a.source AS source, a.batch AS batch,
    a.reason AS reason,
    coalesce(a.message || ' ', '')
    || 'Next: ingester retry ' || a.arrival_id || ', or: ingester resolve ' || a.arrival_id
    AS message,
    a.arrival_id AS arrival_id, a.instance_id AS instance_id
FROM arrivals AS a
WHERE a.outcome = 'quarantined' AND a.resolved_at IS NULL AND a.retried_as IS NULL
UNION ALL
SELECT
    'conflict', a.finished_at, a.source, a.batch, a.reason,
    coalesce(a.message || ' ', '')
    || 'Next: ingester resolve ' || a.arrival_id || ', or with --make-current',
    a.arrival_id, a.instance_id
FROM arrivals AS a
WHERE a.outcome = 'conflict' AND a.resolved_at IS NULL
UNION ALL
SELECT
    'derivative', d.made_at, i.source,
    (SELECT a.batch FROM arrivals AS a WHERE a.instance_id = i.instance_id
        ORDER BY a.arrival_id LIMIT 1),
    d.reason,
    CASE d.kind WHEN 'video' THEN 'The video' ELSE 'The thumbnail' END
    || ' could not be made: '
    || CASE d.reason
        WHEN 'unsupported-transfer-syntax' THEN 'no decoder knows how the pixels are compressed'
        WHEN 'corrupt-pixels' THEN 'the pixel data are damaged or do not fit the header'
        WHEN 'too-large' THEN 'the image is larger than the limits allow'
        WHEN 'timeout' THEN 'it took longer than the limits allow'
        WHEN 'decoder-crashed' THEN 'the decoder crashed on it'
        WHEN 'encoder-failed' THEN 'the encoder failed'
        ELSE 'the reason is ' || coalesce(d.reason, 'unknown')
    END
    || '. The object itself is archived and whole. Next: ingester derive --failed',
    (SELECT a.arrival_id FROM arrivals AS a WHERE a.instance_id = i.instance_id
        ORDER BY a.arrival_id LIMIT 1),
    i.instance_id
FROM derivatives AS d
JOIN instances AS i ON i.instance_id = d.instance_id
WHERE d.status = 'failed'
UNION ALL
SELECT
    CASE c.level WHEN 'patient' THEN 'patient-identity' ELSE 'contradiction' END,
    c.at, i.source,
    (SELECT a.batch FROM arrivals AS a WHERE a.instance_id = i.instance_id
        ORDER BY a.arrival_id LIMIT 1),
    c.attribute,
    CASE WHEN c.other_uid IS NOT NULL THEN
        'One patient ID, two patients: study ' || c.uid || ' has another '
        || replace(replace(c.attribute, 'patient_', ''), '_', ' ') || ' than study '
        || c.other_uid || ' has. The index keeps them apart.'
    ELSE
    CASE c.level
        WHEN 'patient' THEN 'Objects of one study name different patients: '
        WHEN 'study' THEN 'Objects of one study disagree about the study: '
        ELSE 'Objects of one series disagree about the series: '
    END
    || CASE c.attribute WHEN 'study_instance_uid' THEN 'one series appears in two studies'
        ELSE replace(c.attribute, '_', ' ') || ' differs' END
    || '. The index shows what the first object said (UID ' || c.uid || ').'
    END
    || ' Next: ingester resolve --study ' || i.study_instance_uid,
    (SELECT a.arrival_id FROM arrivals AS a WHERE a.instance_id = i.instance_id
        ORDER BY a.arrival_id LIMIT 1),
    c.instance_id
FROM contradictions AS c
JOIN instances AS i ON i.instance_id = c.instance_id
WHERE c.resolved_at IS NULL;
