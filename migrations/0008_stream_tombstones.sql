-- when: before the deployment
-- why:  what is left of a stream that is deleted or has expired (its head row, what it was created with) goes for good
--       after a while, as streams may be made and deleted by the thousand. How far their epochs came stays, so that an
--       offset of an old stream is never taken for a place in a new one of its name.

CREATE TABLE ydoc.stream_epochs (
    only_row boolean NOT NULL DEFAULT true CONSTRAINT stream_epochs_pkey PRIMARY KEY,
    -- the greatest epoch of all streams whose tombstones are gone: a name without one begins behind it
    spent    integer NOT NULL DEFAULT 0,
    CONSTRAINT stream_epochs_one_row CHECK (only_row)
);

INSERT INTO ydoc.stream_epochs DEFAULT VALUES;

CREATE INDEX streams_purged ON ydoc.streams (purged_at) WHERE purged_at IS NOT NULL;

-- With its owner's rights: whoever compacts may delete no head row, because that could be a document's, but for those
-- that this finds. With them goes what was appended while the rows before it were being purged.
CREATE FUNCTION ydoc.drop_stream_tombstones(kept_days integer, rows_max integer) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH old AS MATERIALIZED (
        SELECT d.id, d.epoch
        FROM ydoc.streams AS s
        JOIN ydoc.documents AS d ON d.id = s.document_id AND d.kind = 'stream'
        WHERE s.purged_at < now() - make_interval(days => kept_days)
        ORDER BY s.purged_at
        LIMIT rows_max
        FOR UPDATE OF s SKIP LOCKED
    ), spent AS (
        UPDATE ydoc.stream_epochs AS e
        SET spent = greatest(e.spent, o.epoch)
        FROM (SELECT max(old.epoch) AS epoch FROM old) AS o
        WHERE o.epoch > e.spent
    ), updates AS (
        DELETE FROM ydoc.updates AS u USING old AS o WHERE u.document_id = o.id
    ), producers AS (
        DELETE FROM ydoc.producers AS p USING old AS o WHERE p.document_id = o.id
    ), settings AS (
        DELETE FROM ydoc.streams AS s USING old AS o WHERE s.document_id = o.id
    ), heads AS (
        DELETE FROM ydoc.documents AS d USING old AS o WHERE d.id = o.id RETURNING 1
    )
    SELECT count(*) FROM heads
$$;
REVOKE ALL ON FUNCTION ydoc.drop_stream_tombstones(integer, integer) FROM PUBLIC;
