-- when: before the deployment
-- why:  what the compactor did, and which documents it has given up on for now, are rows that an operator lists.

CREATE TABLE ydoc.compactions (
    id                    bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT compactions_pkey PRIMARY KEY,
    document_id           bigint NOT NULL,
    started_at            timestamptz NOT NULL,
    duration_ms           double precision NOT NULL,
    -- done | failed | lost (another compactor was first)
    result                text NOT NULL,
    -- fold | join (deleted content kept) | merge (the fold was in doubt); NULL unless done
    way                   text,
    why                   text NOT NULL,
    after_seq             bigint NOT NULL,
    through_seq           bigint,
    rows_merged           bigint NOT NULL DEFAULT 0,
    tail_bytes            bigint NOT NULL DEFAULT 0,
    snapshot_bytes_before bigint NOT NULL DEFAULT 0,
    snapshot_bytes_after  bigint NOT NULL DEFAULT 0,
    history_bytes         bigint NOT NULL DEFAULT 0,
    error                 text,
    CONSTRAINT compactions_result_known CHECK (result IN ('done', 'failed', 'lost')),
    CONSTRAINT compactions_way_known CHECK (way IN ('fold', 'join', 'merge')),
    CONSTRAINT compactions_done_has_a_way CHECK ((result = 'done') = (way IS NOT NULL))
);

CREATE INDEX compactions_by_document ON ydoc.compactions (document_id, id);
CREATE INDEX compactions_by_time ON ydoc.compactions (started_at);

CREATE TABLE ydoc.quarantines (
    document_id    bigint NOT NULL CONSTRAINT quarantines_pkey PRIMARY KEY,
    failures       integer NOT NULL,
    reason         text NOT NULL,
    first_failed_at timestamptz NOT NULL DEFAULT now(),
    last_failed_at timestamptz NOT NULL DEFAULT now(),
    -- NULL while the failures are fewer than the limit; once set, sweeps leave the document alone
    quarantined_at timestamptz,
    CONSTRAINT quarantines_failures_positive CHECK (failures >= 1)
);
