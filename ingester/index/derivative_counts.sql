-- How many derivatives there are, so that `status` need not count two million rows every
-- second; kept like the counts of counts.sql.

-- Ours: how many derivatives of a kind ended so, by version of the pipeline.
CREATE TABLE derivative_counts (
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    pipeline_version INTEGER NOT NULL,
    derivatives INTEGER NOT NULL,
    PRIMARY KEY (kind, status, pipeline_version)
) WITHOUT ROWID;

CREATE TRIGGER derivative_counts_gain AFTER INSERT ON derivatives BEGIN
    INSERT INTO derivative_counts VALUES (NEW.kind, NEW.status, NEW.pipeline_version, 1)
    ON CONFLICT (kind, status, pipeline_version) DO UPDATE SET derivatives = derivatives + 1;
END;
CREATE TRIGGER derivative_counts_lose AFTER DELETE ON derivatives BEGIN
    UPDATE derivative_counts SET derivatives = derivatives - 1
    WHERE kind = OLD.kind AND status = OLD.status AND pipeline_version = OLD.pipeline_version;
    DELETE FROM derivative_counts
    WHERE kind = OLD.kind AND status = OLD.status AND derivatives = 0;
END;
CREATE TRIGGER derivative_counts_change AFTER UPDATE OF status, pipeline_version ON derivatives
BEGIN
    UPDATE derivative_counts SET derivatives = derivatives - 1
    WHERE kind = OLD.kind AND status = OLD.status AND pipeline_version = OLD.pipeline_version;
    DELETE FROM derivative_counts
    WHERE kind = OLD.kind AND status = OLD.status AND derivatives = 0;
    INSERT INTO derivative_counts VALUES (NEW.kind, NEW.status, NEW.pipeline_version, 1)
    ON CONFLICT (kind, status, pipeline_version) DO UPDATE SET derivatives = derivatives + 1;
END;
