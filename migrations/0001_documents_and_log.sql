-- when: before the deployment
-- why:  the log itself. One row in `documents` an epoch of a document carries its head, so that a commit can
--       advance it and insert the update rows in one statement; snapshots and history segments take over what
--       the compactor merged. The document's id leads every key, so that the tables distribute by it.

CREATE TABLE ydoc.documents (
    id             bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT documents_pkey PRIMARY KEY,
    tenant         text COLLATE "C" NOT NULL,
    name           text COLLATE "C" NOT NULL,
    epoch          integer NOT NULL DEFAULT 1,
    -- client id of the invisible struct that every synced client of this epoch carries in its state vector
    marker         bigint NOT NULL,
    -- what guards an append lives on this row, because only this row is locked by it
    head           bigint NOT NULL DEFAULT 0,
    accepted_rows  bigint NOT NULL DEFAULT 0,
    accepted_bytes bigint NOT NULL DEFAULT 0,
    -- editors with `gc: false`: compaction joins structs but keeps deleted content
    keep_deleted   boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT now(),
    changed_at     timestamptz NOT NULL DEFAULT now(),
    deleted_at     timestamptz,
    replaced_at    timestamptz,
    CONSTRAINT documents_one_row_an_epoch UNIQUE (tenant, name, epoch),
    CONSTRAINT documents_tenant_not_empty CHECK (tenant <> ''),
    CONSTRAINT documents_name_1_to_512_bytes CHECK (octet_length(name) BETWEEN 1 AND 512),
    CONSTRAINT documents_epoch_from_1 CHECK (epoch >= 1),
    CONSTRAINT documents_marker_reserved CHECK (marker >= 9007199237963776 AND marker < 9007199254740992),
    CONSTRAINT documents_rows_within_head CHECK (accepted_rows BETWEEN 0 AND head),
    CONSTRAINT documents_bytes_not_negative CHECK (accepted_bytes >= 0)
) WITH (
    -- room on the page for the head's next version, so that every append's UPDATE stays heap-only
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.1
);

-- At most one epoch of a name is current; replaced epochs keep their rows until they are purged.
CREATE UNIQUE INDEX documents_current ON ydoc.documents (tenant, name) WHERE replaced_at IS NULL;

CREATE TABLE ydoc.updates (
    -- No foreign key: rows come only out of the UPDATE of their head row, in the same statement, and a key
    -- check a row would lock that head row once more and write it to the WAL again.
    document_id bigint NOT NULL,
    -- of the row's last update; the row holds (seq - count, seq]
    seq         bigint NOT NULL,
    count       integer NOT NULL,
    actor       text,
    accepted_at timestamptz NOT NULL DEFAULT now(),
    -- `count` updates, each as a lib0 frame: varUint(length) and its bytes
    frames      bytea NOT NULL,
    CONSTRAINT updates_pkey PRIMARY KEY (document_id, seq),
    CONSTRAINT updates_count_positive CHECK (count >= 1),
    CONSTRAINT updates_seq_not_below_count CHECK (seq >= count),
    CONSTRAINT updates_frames_not_shorter_than_count CHECK (octet_length(frames) >= count)
) WITH (
    -- rows live for one compaction interval: vacuum by number, not by share of the table
    autovacuum_vacuum_scale_factor = 0.0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_scale_factor = 0.0,
    autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_analyze_scale_factor = 0.0,
    autovacuum_analyze_threshold = 50000
);

CREATE TABLE ydoc.snapshots (
    document_id   bigint NOT NULL CONSTRAINT snapshots_of_a_document REFERENCES ydoc.documents (id),
    -- this row equals all updates with seq <= through_seq
    through_seq   bigint NOT NULL,
    bytes         bytea NOT NULL,
    state_vector  bytea NOT NULL,
    delete_set    bytea NOT NULL,
    -- the head row's counters at through_seq: backlog = counters there - counters here
    merged_rows   bigint NOT NULL,
    merged_bytes  bigint NOT NULL,
    way           text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- set when a newer snapshot took over and this one was kept as a base for the history segments
    superseded_at timestamptz,
    CONSTRAINT snapshots_pkey PRIMARY KEY (document_id, through_seq),
    CONSTRAINT snapshots_through_from_1 CHECK (through_seq >= 1),
    CONSTRAINT snapshots_way_known CHECK (way IN ('fold', 'join', 'merge')),
    CONSTRAINT snapshots_rows_within_through CHECK (merged_rows BETWEEN 1 AND through_seq)
);

CREATE UNIQUE INDEX snapshots_one_current ON ydoc.snapshots (document_id) WHERE superseded_at IS NULL;

CREATE TABLE ydoc.segments (
    document_id bigint NOT NULL CONSTRAINT segments_of_a_document REFERENCES ydoc.documents (id),
    -- the merged rows of (after_seq, through_seq], compressed
    after_seq   bigint NOT NULL,
    through_seq bigint NOT NULL,
    row_count   integer NOT NULL,
    raw_bytes   bigint NOT NULL,
    bytes       bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT segments_pkey PRIMARY KEY (document_id, through_seq),
    CONSTRAINT segments_not_empty CHECK (after_seq >= 0 AND through_seq > after_seq),
    CONSTRAINT segments_rows_within_range CHECK (row_count BETWEEN 1 AND through_seq - after_seq)
);

-- Frames and snapshots are dense already: lz4 where the server has it, else no compression. The default
-- (pglz) costs several times the time of both for nothing.
DO $$
BEGIN
    ALTER TABLE ydoc.snapshots ALTER COLUMN bytes SET COMPRESSION lz4;
    ALTER TABLE ydoc.updates ALTER COLUMN frames SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    ALTER TABLE ydoc.snapshots ALTER COLUMN bytes SET STORAGE EXTERNAL;
    ALTER TABLE ydoc.updates ALTER COLUMN frames SET STORAGE EXTERNAL;
END
$$;
-- Segments are compressed before they come.
ALTER TABLE ydoc.segments ALTER COLUMN bytes SET STORAGE EXTERNAL;
