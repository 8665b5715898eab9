-- when: before the deployment
-- why:  what an append may be made to depend on (a producer's place, a stream that was closed, a writer's own order)
--       is judged on the locked head row and committed with the append, so that a retry is stored once. Byte streams
--       live in the same rows as documents and are never taken for one: their kind is part of every unique name.

ALTER TABLE ydoc.documents
    -- document: Yjs updates, which the compactor merges | stream: bytes in the order in which they came, never merged
    ADD COLUMN kind text COLLATE "C" NOT NULL DEFAULT 'document',
    -- a stream that takes nothing more
    ADD COLUMN closed_at timestamptz,
    -- greatest Stream-Seq that was accepted, in the order of its bytes
    ADD COLUMN stream_seq text COLLATE "C",
    ADD CONSTRAINT documents_kind_known CHECK (kind IN ('document', 'stream')),
    ADD CONSTRAINT documents_only_a_stream_closes CHECK (
        kind = 'stream' OR (closed_at IS NULL AND stream_seq IS NULL)
    ),
    DROP CONSTRAINT documents_one_row_an_epoch,
    ADD CONSTRAINT documents_one_row_an_epoch UNIQUE (tenant, kind, name, epoch);

DROP INDEX ydoc.documents_current;
-- The kind stands before the name: a list of documents reads past no stream.
CREATE UNIQUE INDEX documents_current ON ydoc.documents (tenant, kind, name) WHERE replaced_at IS NULL;

-- Where each idempotent producer of a document stands. Written only under the lock of the document's head row.
CREATE TABLE ydoc.producers (
    document_id bigint NOT NULL,
    producer_id text COLLATE "C" NOT NULL,
    epoch       bigint NOT NULL,
    -- of its last accepted update
    seq         bigint NOT NULL,
    -- when it last wrote or repeated itself; those that are silent for longer than history is kept are forgotten
    last_at     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT producers_pkey PRIMARY KEY (document_id, producer_id),
    CONSTRAINT producers_id_1_to_256_bytes CHECK (octet_length(producer_id) BETWEEN 1 AND 256),
    CONSTRAINT producers_place_not_negative CHECK (epoch >= 0 AND seq >= 0)
) WITH (
    -- an update of no indexed column, of a row that is written with nearly every commit: room for it on the page
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02
);

-- What a stream was created with; the rest of it is its head row and its updates.
CREATE TABLE ydoc.streams (
    document_id  bigint NOT NULL CONSTRAINT streams_pkey PRIMARY KEY
        CONSTRAINT streams_of_a_head REFERENCES ydoc.documents (id),
    -- as it was given, parameters included
    content_type text NOT NULL,
    -- lives for so long after the last read or append
    ttl_s        bigint,
    -- the text that it was given as, for comparison; and what it means
    expires_text text,
    expires_at   timestamptz,
    used_at      timestamptz NOT NULL DEFAULT now(),
    -- an expired stream's end is written down before its rows go, so that no use comes in between
    expired_at   timestamptz,
    -- set once the rows of a stream that is deleted or expired are gone
    purged_at    timestamptz,
    CONSTRAINT streams_ttl_not_negative CHECK (ttl_s >= 0),
    CONSTRAINT streams_one_way_to_expire CHECK (ttl_s IS NULL OR expires_at IS NULL),
    CONSTRAINT streams_expiry_has_its_text CHECK ((expires_text IS NULL) = (expires_at IS NULL))
);

-- A compactor of the release before, which runs until the deployment is over or after it is taken back, knows no kinds:
-- it must not merge a stream's bytes as if they were updates. Its merge and its DELETE are one transaction.
CREATE FUNCTION ydoc.refuse_snapshot_of_stream() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM ydoc.documents AS d WHERE d.id = NEW.document_id AND d.kind = 'stream') THEN
        RAISE EXCEPTION 'a stream is never merged' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER snapshots_of_documents_alone BEFORE INSERT ON ydoc.snapshots
    FOR EACH ROW EXECUTE FUNCTION ydoc.refuse_snapshot_of_stream();
