-- when: before the deployment
-- why:  a standby that took over has all that the primary had written up to some place of the WAL. Whoever keeps a
--       cursor of the change feed from before goes on with it if everything that it was told lies before that place,
--       which Postgres itself forgets with its next restart.

CREATE TABLE ydoc.timelines (
    system_identifier bigint NOT NULL,
    timeline          integer NOT NULL,
    -- random: two standbys that were both promoted may count the same
    marker            uuid NOT NULL DEFAULT gen_random_uuid(),
    -- where it left the one before; null where nobody asked while it could be told
    began_at          pg_lsn,
    noted_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT timelines_pkey PRIMARY KEY (system_identifier, timeline)
);
