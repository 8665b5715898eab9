-- when: before the deployment
-- why:  access that was taken back before its token expires is a row that every node reads, so that it is refused
--       everywhere within seconds, after restarts too.

CREATE TABLE ydoc.revocations (
    id         bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT revocations_pkey PRIMARY KEY,
    tenant     text COLLATE "C" NOT NULL,
    -- user | document | tenant
    kind       text NOT NULL,
    -- the user's id or the document's name; '' for the tenant itself
    value      text COLLATE "C" NOT NULL,
    -- tokens issued earlier, or nobody knows when, are refused
    before     timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT revocations_tenant_not_empty CHECK (tenant <> ''),
    CONSTRAINT revocations_kind_known CHECK (kind IN ('user', 'document', 'tenant')),
    CONSTRAINT revocations_value_of_its_kind CHECK ((kind = 'tenant') = (value = ''))
);

CREATE INDEX revocations_by_time ON ydoc.revocations (before);
