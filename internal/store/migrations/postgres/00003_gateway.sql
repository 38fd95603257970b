-- Tables of the gateway. They may live in a database of their own, and never
-- meet the worker's in a join, a key or a transaction. Amounts are integer
-- micros of the currency that prices are given in.

-- +goose Up

-- One row per request of a user that is to make a project or a build. It is
-- stored before the worker is asked, so that no crash forgets the request, and
-- it keeps its answer, so that nobody gets a second one.
CREATE TABLE gateway_intents (
    id               TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id          TEXT COLLATE "C" NOT NULL CHECK (user_id <> ''),
    client_key       TEXT COLLATE "C" NOT NULL, -- the user's Idempotency-Key, or none:<id>
    operation        TEXT COLLATE "C" NOT NULL CHECK (operation IN ('project.create', 'build.create')),
    fp_version       BIGINT NOT NULL,
    fingerprint      TEXT COLLATE "C" NOT NULL,
    worker_key       TEXT COLLATE "C" NOT NULL UNIQUE, -- the same at every try
    state            TEXT COLLATE "C" NOT NULL CHECK (state IN ('pending', 'confirmed', 'rejected', 'canceled', 'attention')),
    name             TEXT COLLATE "C" NOT NULL,
    project_id       TEXT COLLATE "C",
    build_id         TEXT COLLATE "C",
    body             BYTEA,
    body_pruned_at   BIGINT,
    attempts         BIGINT NOT NULL DEFAULT 0,
    next_attempt_at  BIGINT NOT NULL,
    claimed_by       TEXT COLLATE "C" NOT NULL DEFAULT '',
    claim_until      BIGINT NOT NULL DEFAULT 0,
    deadline_at      BIGINT NOT NULL,
    cancel_requested BIGINT NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    last_error       TEXT COLLATE "C" NOT NULL DEFAULT '',
    reference_id     TEXT COLLATE "C" NOT NULL UNIQUE,
    request_id       TEXT COLLATE "C" NOT NULL,
    created_at       BIGINT NOT NULL,
    updated_at       BIGINT NOT NULL,
    UNIQUE (user_id, client_key),
    CHECK (operation <> 'build.create' OR project_id IS NOT NULL),
    CHECK (state <> 'confirmed' OR project_id IS NOT NULL AND build_id IS NOT NULL),
    CHECK (state NOT IN ('confirmed', 'rejected') OR body IS NOT NULL OR body_pruned_at IS NOT NULL)
);
-- Two intents never end in one project or one build.
CREATE UNIQUE INDEX gateway_intents_project ON gateway_intents (project_id) WHERE operation = 'project.create' AND project_id IS NOT NULL;
CREATE UNIQUE INDEX gateway_intents_build ON gateway_intents (build_id) WHERE build_id IS NOT NULL;
CREATE INDEX gateway_intents_due ON gateway_intents (next_attempt_at) WHERE state = 'pending';
CREATE INDEX gateway_intents_open ON gateway_intents (user_id) WHERE state = 'pending';
CREATE INDEX gateway_intents_attention ON gateway_intents (id) WHERE state = 'attention';
CREATE INDEX gateway_intents_answered ON gateway_intents (created_at) WHERE body IS NOT NULL;
CREATE INDEX gateway_intents_came_to_nothing ON gateway_intents (created_at) WHERE state IN ('rejected', 'canceled');

CREATE TRIGGER gateway_intents_final BEFORE UPDATE ON gateway_intents
FOR EACH ROW WHEN (OLD.state IN ('confirmed', 'rejected', 'canceled') AND NEW.state <> OLD.state) EXECUTE FUNCTION worker_refuse('the end of an intent never changes');

-- What to ask the worker for, until its answer is known.
CREATE TABLE gateway_intent_requests (
    intent_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES gateway_intents (id),
    body      BYTEA NOT NULL
);

-- A request without a key: equal ones of the same user are one until expires_at.
CREATE TABLE gateway_create_guard (
    user_id     TEXT COLLATE "C" NOT NULL,
    fingerprint TEXT COLLATE "C" NOT NULL,
    intent_id   TEXT COLLATE "C" NOT NULL REFERENCES gateway_intents (id) DEFERRABLE INITIALLY DEFERRED,
    expires_at  BIGINT NOT NULL,
    PRIMARY KEY (user_id, fingerprint)
);
CREATE INDEX gateway_create_guard_by_end ON gateway_create_guard (expires_at);
CREATE INDEX gateway_create_guard_by_intent ON gateway_create_guard (intent_id);

-- One row per user: locked by whoever counts what the user may do.
CREATE TABLE gateway_users (
    user_id    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL
);

-- Names of a user's projects, and of those that are being made.
CREATE TABLE gateway_names (
    user_id   TEXT COLLATE "C" NOT NULL,
    name      TEXT COLLATE "C" NOT NULL, -- folded, as names are compared
    intent_id TEXT COLLATE "C" NOT NULL UNIQUE REFERENCES gateway_intents (id) DEFERRABLE INITIALLY DEFERRED,
    PRIMARY KEY (user_id, name)
);

-- Written only with a confirmed intent: the id is the worker's.
CREATE TABLE gateway_projects (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    intent_id       TEXT COLLATE "C" NOT NULL UNIQUE REFERENCES gateway_intents (id),
    owner_id        TEXT COLLATE "C" NOT NULL CHECK (owner_id <> ''),
    name            TEXT COLLATE "C" NOT NULL CHECK (name <> ''),
    prompt          TEXT COLLATE "C" NOT NULL,
    template        TEXT COLLATE "C" NOT NULL,
    preview_url     TEXT COLLATE "C" NOT NULL,
    state           TEXT COLLATE "C" NOT NULL CHECK (state IN ('active', 'deleting', 'deleted')),
    build_seq       BIGINT NOT NULL CHECK (build_seq >= 1), -- of the newest build
    current_version BIGINT NOT NULL DEFAULT 0,
    pinned          BIGINT NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
    last_event_seq  BIGINT NOT NULL DEFAULT 0, -- of the worker's events, the last that was applied
    attention       TEXT COLLATE "C" NOT NULL DEFAULT '',   -- why an operator should look
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL,
    deleted_at      BIGINT,
    CHECK ((state = 'deleted') = (deleted_at IS NOT NULL))
);
CREATE INDEX gateway_projects_by_owner ON gateway_projects (owner_id, id);
CREATE INDEX gateway_projects_deleting ON gateway_projects (id) WHERE state = 'deleting';
CREATE INDEX gateway_projects_attention ON gateway_projects (id) WHERE attention <> '';

CREATE TABLE gateway_builds (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    project_id    TEXT COLLATE "C" NOT NULL REFERENCES gateway_projects (id),
    owner_id      TEXT COLLATE "C" NOT NULL,
    seq           BIGINT NOT NULL CHECK (seq >= 1),
    status        TEXT COLLATE "C" NOT NULL CHECK (status IN ('queued', 'building', 'deployed', 'failed', 'canceled', 'superseded')),
    worker_status TEXT COLLATE "C" NOT NULL,
    canceling     BIGINT NOT NULL DEFAULT 0 CHECK (canceling IN (0, 1)),
    epoch         BIGINT NOT NULL DEFAULT 0,
    version       BIGINT NOT NULL DEFAULT 0,
    preview_url   TEXT COLLATE "C" NOT NULL,
    superseded_by TEXT COLLATE "C" NOT NULL DEFAULT '',
    failure       TEXT COLLATE "C",
    reference_id  TEXT COLLATE "C" NOT NULL,
    event_seq     BIGINT NOT NULL DEFAULT 0, -- of its events, the last that was applied
    queued_at     BIGINT NOT NULL,
    started_at    BIGINT, -- of the last attempt
    finished_at   BIGINT,
    compared_at   BIGINT NOT NULL DEFAULT 0,
    UNIQUE (project_id, seq),
    CHECK ((status IN ('deployed', 'failed', 'canceled', 'superseded')) = (finished_at IS NOT NULL))
);
CREATE INDEX gateway_builds_active ON gateway_builds (compared_at) WHERE finished_at IS NULL;
CREATE INDEX gateway_builds_by_reference ON gateway_builds (reference_id);
CREATE INDEX gateway_builds_by_owner ON gateway_builds (owner_id, queued_at);

CREATE TRIGGER gateway_builds_terminal BEFORE UPDATE ON gateway_builds
FOR EACH ROW WHEN (OLD.finished_at IS NOT NULL AND NEW.status <> OLD.status) EXECUTE FUNCTION worker_refuse('a build that is over stays as it is');

-- Events in the app's words, in the order in which they were applied. seq is
-- the worker's, so that each project's count 1, 2, 3…
CREATE TABLE gateway_events (
    position   BIGINT NOT NULL PRIMARY KEY,
    project_id TEXT COLLATE "C" NOT NULL REFERENCES gateway_projects (id),
    seq        BIGINT NOT NULL,
    owner_id   TEXT COLLATE "C" NOT NULL,
    type       TEXT COLLATE "C" NOT NULL,
    build_id   TEXT COLLATE "C",
    data       TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C" NOT NULL,
    at         BIGINT NOT NULL,
    UNIQUE (project_id, seq)
);
CREATE INDEX gateway_events_by_owner ON gateway_events (owner_id, position);

-- How far the worker's feed was applied. One locked row makes one applier.
CREATE TABLE gateway_feed (
    name       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    cursor     TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    position   BIGINT NOT NULL -- the last of gateway_events
);
INSERT INTO gateway_feed (name, cursor, generation, position) VALUES ('worker', '', 1, 0);

-- Events whose project is not stored yet, and such that cannot be applied.
CREATE TABLE gateway_parked_events (
    project_id TEXT COLLATE "C" NOT NULL,
    seq        BIGINT NOT NULL,
    event      TEXT COLLATE "C" NOT NULL,
    state      TEXT COLLATE "C" NOT NULL CHECK (state IN ('parked', 'poison')),
    error      TEXT COLLATE "C" NOT NULL DEFAULT '',
    attempts   BIGINT NOT NULL DEFAULT 0,
    parked_at  BIGINT NOT NULL,
    PRIMARY KEY (project_id, seq)
);

-- One session per build and kind, opened when the build's id is stored, closed
-- in the transaction that applies the event of its end.
CREATE TABLE gateway_billing_sessions (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    project_id      TEXT COLLATE "C" NOT NULL REFERENCES gateway_projects (id),
    build_id        TEXT COLLATE "C" NOT NULL REFERENCES gateway_builds (id),
    owner_id        TEXT COLLATE "C" NOT NULL,
    kind            TEXT COLLATE "C" NOT NULL CHECK (kind IN ('build')),
    state           TEXT COLLATE "C" NOT NULL CHECK (state IN ('open', 'settled', 'voided')),
    reason          TEXT COLLATE "C" NOT NULL DEFAULT '',
    reserved_micros BIGINT NOT NULL CHECK (reserved_micros >= 0),
    amount_micros   BIGINT NOT NULL DEFAULT 0 CHECK (amount_micros >= 0),
    opened_at       BIGINT NOT NULL,
    closed_at       BIGINT,
    told_at         BIGINT, -- when the biller had it
    tell_attempts   BIGINT NOT NULL DEFAULT 0,
    tell_at         BIGINT NOT NULL DEFAULT 0,
    UNIQUE (project_id, build_id, kind),
    CHECK ((state = 'open') = (closed_at IS NULL)),
    CHECK (state = 'settled' OR amount_micros = 0)
);
CREATE INDEX gateway_billing_sessions_by_owner ON gateway_billing_sessions (owner_id, id);
CREATE INDEX gateway_billing_sessions_by_time ON gateway_billing_sessions (owner_id, opened_at);
CREATE INDEX gateway_billing_sessions_open ON gateway_billing_sessions (owner_id) WHERE state = 'open';
CREATE INDEX gateway_billing_sessions_untold ON gateway_billing_sessions (tell_at) WHERE told_at IS NULL AND state <> 'open';

CREATE TRIGGER gateway_billing_sessions_closed BEFORE UPDATE ON gateway_billing_sessions
FOR EACH ROW WHEN (OLD.state <> 'open' AND (NEW.state <> OLD.state OR NEW.amount_micros <> OLD.amount_micros)) EXECUTE FUNCTION worker_refuse('a closed session never changes');

-- What was used, once each: entry_key says what of.
CREATE TABLE gateway_billing_entries (
    entry_key     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    session_id    TEXT COLLATE "C" NOT NULL REFERENCES gateway_billing_sessions (id),
    meter         TEXT COLLATE "C" NOT NULL,
    quantity      BIGINT NOT NULL CHECK (quantity >= 0),
    unit          TEXT COLLATE "C" NOT NULL,
    amount_micros BIGINT NOT NULL CHECK (amount_micros >= 0),
    at            BIGINT NOT NULL
);
CREATE INDEX gateway_billing_entries_by_session ON gateway_billing_entries (session_id);

-- Double entry: the postings of an entry sum to nothing.
CREATE TABLE gateway_billing_postings (
    entry_key     TEXT COLLATE "C" NOT NULL REFERENCES gateway_billing_entries (entry_key),
    account       TEXT COLLATE "C" NOT NULL,
    amount_micros BIGINT NOT NULL,
    PRIMARY KEY (entry_key, account)
);
CREATE INDEX gateway_billing_postings_by_account ON gateway_billing_postings (account);

CREATE TABLE gateway_billing_accounts (
    account        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    balance_micros BIGINT NOT NULL
);

CREATE TRIGGER gateway_billing_entries_no_update BEFORE UPDATE ON gateway_billing_entries
FOR EACH ROW EXECUTE FUNCTION worker_refuse('the ledger is append-only');
CREATE TRIGGER gateway_billing_postings_no_update BEFORE UPDATE ON gateway_billing_postings
FOR EACH ROW EXECUTE FUNCTION worker_refuse('the ledger is append-only');
CREATE TRIGGER gateway_billing_postings_no_delete BEFORE DELETE ON gateway_billing_postings
FOR EACH ROW EXECUTE FUNCTION worker_refuse('the ledger is append-only');

-- Users and sessions whose tokens are refused before they end.
CREATE TABLE gateway_denied (
    kind       TEXT COLLATE "C" NOT NULL CHECK (kind IN ('user', 'session')),
    subject    TEXT COLLATE "C" NOT NULL,
    reason     TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (kind, subject)
);

-- The gateway's own chain: its database may be another than the worker's.
CREATE TABLE gateway_audit_head (
    chain TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    seq   BIGINT NOT NULL,
    hash  TEXT COLLATE "C" NOT NULL
);
INSERT INTO gateway_audit_head (chain, seq, hash) VALUES ('gateway', 0, '');

CREATE TABLE gateway_audit (
    chain   TEXT COLLATE "C" NOT NULL,
    seq     BIGINT NOT NULL,
    prev    TEXT COLLATE "C" NOT NULL,
    hash    TEXT COLLATE "C" NOT NULL,
    at      BIGINT NOT NULL,
    actor   TEXT COLLATE "C" NOT NULL,
    action  TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    data    TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (chain, seq),
    UNIQUE (chain, prev)
);

CREATE TRIGGER gateway_audit_no_update BEFORE UPDATE ON gateway_audit
FOR EACH ROW EXECUTE FUNCTION worker_refuse('the audit log is append-only');
CREATE TRIGGER gateway_audit_no_delete BEFORE DELETE ON gateway_audit
FOR EACH ROW EXECUTE FUNCTION worker_refuse('the audit log is append-only');

-- As worker_append_audit, for the gateway's chain.
ALTER TABLE gateway_audit_head ADD COLUMN prev TEXT COLLATE "C" NOT NULL DEFAULT '';
-- +goose StatementBegin
CREATE FUNCTION gateway_append_audit(p_at BIGINT, p_actor TEXT, p_action TEXT, p_subject TEXT, p_data TEXT)
RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    v_entry BYTEA := int8send(p_at) || worker_audit_field(p_actor) || worker_audit_field(p_action)
        || worker_audit_field(p_subject) || worker_audit_field(p_data);
    v_head  gateway_audit_head;
BEGIN
    UPDATE gateway_audit_head
    SET seq = seq + 1, prev = hash, hash = encode(sha256(worker_audit_field(hash) || int8send(seq + 1) || v_entry), 'hex')
    WHERE chain = 'gateway' RETURNING * INTO STRICT v_head;
    INSERT INTO gateway_audit (chain, seq, prev, hash, at, actor, action, subject, data)
    VALUES ('gateway', v_head.seq, v_head.prev, v_head.hash, p_at, p_actor, p_action, p_subject, p_data);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION gateway_append_audit;
DROP TABLE gateway_audit;
DROP TABLE gateway_audit_head;
DROP TABLE gateway_denied;
DROP TABLE gateway_billing_accounts;
DROP TABLE gateway_billing_postings;
DROP TABLE gateway_billing_entries;
DROP TABLE gateway_billing_sessions;
DROP TABLE gateway_parked_events;
DROP TABLE gateway_feed;
DROP TABLE gateway_events;
DROP TABLE gateway_builds;
DROP TABLE gateway_projects;
DROP TABLE gateway_names;
DROP TABLE gateway_users;
DROP TABLE gateway_create_guard;
DROP TABLE gateway_intent_requests;
DROP TABLE gateway_intents;
