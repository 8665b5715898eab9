-- when: before the deployment
-- why:  what happened to all documents of a tenant, in an order that can be followed from a stored place: seqs order
--       one document alone, and no counter over a tenant lets its lanes commit side by side. A row is read once every
--       transaction that could still write one before it has ended.

-- The newest transaction that has ended or is this one, as it is now: a function's own statements see what was
-- committed while the statement that calls it waited for a lock. Whoever waited for another's commit is behind it.
CREATE FUNCTION ydoc.newest_xid() RETURNS bigint LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
BEGIN
    RETURN greatest(
        pg_current_xact_id()::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1
    );
END
$$;

CREATE TABLE ydoc.commits (
    tenant       text COLLATE "C" NOT NULL,
    -- the row's place, with its id: whoever follows reads it once all transactions through this one have ended. Of a
    -- transaction that waited it is not its own, which may be lower than that of the one that it waited for.
    through_xid  bigint NOT NULL DEFAULT ydoc.newest_xid(),
    id           bigint GENERATED ALWAYS AS IDENTITY,
    -- the transaction that wrote the row: another than the row's own xmin says that the row was loaded from a dump,
    -- where all of this counts another server's transactions
    writer       xid NOT NULL DEFAULT pg_current_xact_id()::xid,
    at           timestamptz NOT NULL DEFAULT now(),
    what         text NOT NULL,
    -- the others run alongside, where the event has such a thing: a row of the log is (seq - count, seq] by an actor
    document_ids bigint[] NOT NULL,
    seqs         bigint[],
    counts       integer[],
    actors       text[],
    -- of what was renamed: what it was called before
    name_before  text COLLATE "C",
    CONSTRAINT commits_pkey PRIMARY KEY (tenant, through_xid, id),
    CONSTRAINT commits_what_known CHECK (
        what IN (
            'created', 'append', 'compacted', 'deleted', 'undeleted', 'recreated', 'replaced', 'purged', 'renamed'
        )
    ),
    CONSTRAINT commits_of_documents CHECK (cardinality(document_ids) >= 1),
    CONSTRAINT commits_append_has_seqs CHECK (what <> 'append' OR (seqs IS NOT NULL AND counts IS NOT NULL)),
    CONSTRAINT commits_renamed_from CHECK ((what = 'renamed') = (name_before IS NOT NULL))
) WITH (
    -- rows come at the end and leave at the beginning, by the day
    autovacuum_vacuum_scale_factor = 0.0,
    autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_insert_scale_factor = 0.0,
    autovacuum_vacuum_insert_threshold = 200000,
    autovacuum_analyze_scale_factor = 0.1
);

-- The arrays of a large commit, as in migration 1: the default compression takes longer than all else in this row.
DO $$
BEGIN
    ALTER TABLE ydoc.commits
        ALTER COLUMN document_ids SET COMPRESSION lz4,
        ALTER COLUMN seqs SET COMPRESSION lz4,
        ALTER COLUMN counts SET COMPRESSION lz4,
        ALTER COLUMN actors SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    ALTER TABLE ydoc.commits
        ALTER COLUMN document_ids SET STORAGE EXTERNAL,
        ALTER COLUMN seqs SET STORAGE EXTERNAL,
        ALTER COLUMN counts SET STORAGE EXTERNAL,
        ALTER COLUMN actors SET STORAGE EXTERNAL;
END
$$;

-- What a document was called when something happened to it.
CREATE INDEX commits_renames ON ydoc.commits ((document_ids[1]), through_xid, id) WHERE what = 'renamed';
