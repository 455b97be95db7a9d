-- An object that was lost may be put back by a file of another size (counts.sql).

CREATE TRIGGER series_folders_change AFTER UPDATE OF size_bytes ON instances BEGIN
    UPDATE series_folders SET size_bytes = size_bytes + NEW.size_bytes - OLD.size_bytes
    WHERE study_instance_uid = NEW.study_instance_uid
        AND series_instance_uid = NEW.series_instance_uid
        AND folder = rtrim(rtrim(NEW.path, replace(NEW.path, '/', '')), '/');
END;
