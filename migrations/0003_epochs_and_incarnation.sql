-- when: before the deployment
-- why:  a deleted document's content can be purged, so that its tombstone alone is left, and nodes that stay up while
--       a backup is restored under them have to notice it. What Postgres tells of itself (system, timeline, start,
--       identity of database and table) does not change when rows are loaded back into the same tables: then an
--       operator's bump tells.

ALTER TABLE ydoc.documents
    -- set once content and history are gone for good: such an epoch can be neither undeleted nor repaired from
    ADD COLUMN purged_at timestamptz,
    ADD CONSTRAINT documents_purged_is_past CHECK (
        purged_at IS NULL OR deleted_at IS NOT NULL OR replaced_at IS NOT NULL
    );

CREATE TABLE ydoc.incarnation (
    only_row  boolean NOT NULL DEFAULT true CONSTRAINT incarnation_pkey PRIMARY KEY,
    -- random, not a counter: bumped after a restore, a counter may come to the number that nodes remember
    bump      uuid NOT NULL DEFAULT gen_random_uuid(),
    bumped_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT incarnation_one_row CHECK (only_row)
);

INSERT INTO ydoc.incarnation DEFAULT VALUES;
