-- Tables of the gateway. They may live in a database of their own, and never
-- meet the worker's in a join, a key or a transaction. Amounts are integer
-- micros of the currency that prices are given in.

-- +goose Up

-- One row per request of a user that is to make a project or a build. It is
-- stored before the worker is asked, so that no crash forgets the request, and
-- it keeps its answer, so that nobody gets a second one.
CREATE TABLE gateway_intents (
    id               TEXT NOT NULL PRIMARY KEY,
    user_id          TEXT NOT NULL CHECK (user_id <> ''),
    client_key       TEXT NOT NULL, -- the user's Idempotency-Key, or none:<id>
    operation        TEXT NOT NULL CHECK (operation IN ('project.create', 'build.create')),
    fp_version       INTEGER NOT NULL,
    fingerprint      TEXT NOT NULL,
    worker_key       TEXT NOT NULL UNIQUE, -- the same at every try
    state            TEXT NOT NULL CHECK (state IN ('pending', 'confirmed', 'rejected', 'canceled', 'attention')),
    name             TEXT NOT NULL,
    project_id       TEXT,
    build_id         TEXT,
    body             BLOB,
    body_pruned_at   INTEGER,
    attempts         INTEGER NOT NULL DEFAULT 0,
    next_attempt_at  INTEGER NOT NULL,
    claimed_by       TEXT NOT NULL DEFAULT '',
    claim_until      INTEGER NOT NULL DEFAULT 0,
    deadline_at      INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    last_error       TEXT NOT NULL DEFAULT '',
    reference_id     TEXT NOT NULL UNIQUE,
    request_id       TEXT NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    UNIQUE (user_id, client_key),
    CHECK (operation <> 'build.create' OR project_id IS NOT NULL),
    CHECK (state <> 'confirmed' OR project_id IS NOT NULL AND build_id IS NOT NULL),
    CHECK (state NOT IN ('confirmed', 'rejected') OR body IS NOT NULL OR body_pruned_at IS NOT NULL)
) STRICT;
-- Two intents never end in one project or one build.
CREATE UNIQUE INDEX gateway_intents_project ON gateway_intents (project_id) WHERE operation = 'project.create' AND project_id IS NOT NULL;
CREATE UNIQUE INDEX gateway_intents_build ON gateway_intents (build_id) WHERE build_id IS NOT NULL;
CREATE INDEX gateway_intents_due ON gateway_intents (next_attempt_at) WHERE state = 'pending';
CREATE INDEX gateway_intents_open ON gateway_intents (user_id) WHERE state = 'pending';
CREATE INDEX gateway_intents_attention ON gateway_intents (id) WHERE state = 'attention';
CREATE INDEX gateway_intents_answered ON gateway_intents (created_at) WHERE body IS NOT NULL;
CREATE INDEX gateway_intents_came_to_nothing ON gateway_intents (created_at) WHERE state IN ('rejected', 'canceled');

-- +goose StatementBegin
CREATE TRIGGER gateway_intents_final BEFORE UPDATE ON gateway_intents
WHEN OLD.state IN ('confirmed', 'rejected', 'canceled') AND NEW.state <> OLD.state
BEGIN SELECT RAISE(ABORT, 'the end of an intent never changes'); END;
-- +goose StatementEnd

-- What to ask the worker for, until its answer is known.
CREATE TABLE gateway_intent_requests (
    intent_id TEXT NOT NULL PRIMARY KEY REFERENCES gateway_intents (id),
    body      BLOB NOT NULL
) STRICT;

-- A request without a key: equal ones of the same user are one until expires_at.
CREATE TABLE gateway_create_guard (
    user_id     TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    intent_id   TEXT NOT NULL REFERENCES gateway_intents (id) DEFERRABLE INITIALLY DEFERRED,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (user_id, fingerprint)
) STRICT, WITHOUT ROWID;
CREATE INDEX gateway_create_guard_by_end ON gateway_create_guard (expires_at);
CREATE INDEX gateway_create_guard_by_intent ON gateway_create_guard (intent_id);

-- One row per user: locked by whoever counts what the user may do.
CREATE TABLE gateway_users (
    user_id    TEXT NOT NULL PRIMARY KEY,
    created_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Names of a user's projects, and of those that are being made.
CREATE TABLE gateway_names (
    user_id   TEXT NOT NULL,
    name      TEXT NOT NULL, -- folded, as names are compared
    intent_id TEXT NOT NULL UNIQUE REFERENCES gateway_intents (id) DEFERRABLE INITIALLY DEFERRED,
    PRIMARY KEY (user_id, name)
) STRICT, WITHOUT ROWID;

-- Written only with a confirmed intent: the id is the worker's.
CREATE TABLE gateway_projects (
    id              TEXT NOT NULL PRIMARY KEY,
    intent_id       TEXT NOT NULL UNIQUE REFERENCES gateway_intents (id),
    owner_id        TEXT NOT NULL CHECK (owner_id <> ''),
    name            TEXT NOT NULL CHECK (name <> ''),
    prompt          TEXT NOT NULL,
    template        TEXT NOT NULL,
    preview_url     TEXT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('active', 'deleting', 'deleted')),
    build_seq       INTEGER NOT NULL CHECK (build_seq >= 1), -- of the newest build
    current_version INTEGER NOT NULL DEFAULT 0,
    pinned          INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
    last_event_seq  INTEGER NOT NULL DEFAULT 0, -- of the worker's events, the last that was applied
    attention       TEXT NOT NULL DEFAULT '',   -- why an operator should look
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    deleted_at      INTEGER,
    CHECK ((state = 'deleted') = (deleted_at IS NOT NULL))
) STRICT;
CREATE INDEX gateway_projects_by_owner ON gateway_projects (owner_id, id);
CREATE INDEX gateway_projects_deleting ON gateway_projects (id) WHERE state = 'deleting';
CREATE INDEX gateway_projects_attention ON gateway_projects (id) WHERE attention <> '';

CREATE TABLE gateway_builds (
    id            TEXT NOT NULL PRIMARY KEY,
    project_id    TEXT NOT NULL REFERENCES gateway_projects (id),
    owner_id      TEXT NOT NULL,
    seq           INTEGER NOT NULL CHECK (seq >= 1),
    status        TEXT NOT NULL CHECK (status IN ('queued', 'building', 'deployed', 'failed', 'canceled', 'superseded')),
    worker_status TEXT NOT NULL,
    canceling     INTEGER NOT NULL DEFAULT 0 CHECK (canceling IN (0, 1)),
    epoch         INTEGER NOT NULL DEFAULT 0,
    version       INTEGER NOT NULL DEFAULT 0,
    preview_url   TEXT NOT NULL,
    superseded_by TEXT NOT NULL DEFAULT '',
    failure       TEXT,
    reference_id  TEXT NOT NULL,
    event_seq     INTEGER NOT NULL DEFAULT 0, -- of its events, the last that was applied
    queued_at     INTEGER NOT NULL,
    started_at    INTEGER, -- of the last attempt
    finished_at   INTEGER,
    compared_at   INTEGER NOT NULL DEFAULT 0,
    UNIQUE (project_id, seq),
    CHECK ((status IN ('deployed', 'failed', 'canceled', 'superseded')) = (finished_at IS NOT NULL))
) STRICT;
CREATE INDEX gateway_builds_active ON gateway_builds (compared_at) WHERE finished_at IS NULL;
CREATE INDEX gateway_builds_by_reference ON gateway_builds (reference_id);
CREATE INDEX gateway_builds_by_owner ON gateway_builds (owner_id, queued_at);

-- +goose StatementBegin
CREATE TRIGGER gateway_builds_terminal BEFORE UPDATE ON gateway_builds
WHEN OLD.finished_at IS NOT NULL AND NEW.status <> OLD.status
BEGIN SELECT RAISE(ABORT, 'a build that is over stays as it is'); END;
-- +goose StatementEnd

-- Events in the app's words, in the order in which they were applied. seq is
-- the worker's, so that each project's count 1, 2, 3…
CREATE TABLE gateway_events (
    position   INTEGER NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES gateway_projects (id),
    seq        INTEGER NOT NULL,
    owner_id   TEXT NOT NULL,
    type       TEXT NOT NULL,
    build_id   TEXT,
    data       TEXT NOT NULL,
    request_id TEXT NOT NULL,
    at         INTEGER NOT NULL,
    UNIQUE (project_id, seq)
) STRICT;
CREATE INDEX gateway_events_by_owner ON gateway_events (owner_id, position);

-- How far the worker's feed was applied. One locked row makes one applier.
CREATE TABLE gateway_feed (
    name       TEXT NOT NULL PRIMARY KEY,
    cursor     TEXT NOT NULL,
    generation INTEGER NOT NULL,
    position   INTEGER NOT NULL -- the last of gateway_events
) STRICT;
INSERT INTO gateway_feed (name, cursor, generation, position) VALUES ('worker', '', 1, 0);

-- Events whose project is not stored yet, and such that cannot be applied.
CREATE TABLE gateway_parked_events (
    project_id TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    event      TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('parked', 'poison')),
    error      TEXT NOT NULL DEFAULT '',
    attempts   INTEGER NOT NULL DEFAULT 0,
    parked_at  INTEGER NOT NULL,
    PRIMARY KEY (project_id, seq)
) STRICT, WITHOUT ROWID;

-- One session per build and kind, opened when the build's id is stored, closed
-- in the transaction that applies the event of its end.
CREATE TABLE gateway_billing_sessions (
    id              TEXT NOT NULL PRIMARY KEY,
    project_id      TEXT NOT NULL REFERENCES gateway_projects (id),
    build_id        TEXT NOT NULL REFERENCES gateway_builds (id),
    owner_id        TEXT NOT NULL,
    kind            TEXT NOT NULL CHECK (kind IN ('build')),
    state           TEXT NOT NULL CHECK (state IN ('open', 'settled', 'voided')),
    reason          TEXT NOT NULL DEFAULT '',
    reserved_micros INTEGER NOT NULL CHECK (reserved_micros >= 0),
    amount_micros   INTEGER NOT NULL DEFAULT 0 CHECK (amount_micros >= 0),
    opened_at       INTEGER NOT NULL,
    closed_at       INTEGER,
    told_at         INTEGER, -- when the biller had it
    tell_attempts   INTEGER NOT NULL DEFAULT 0,
    tell_at         INTEGER NOT NULL DEFAULT 0,
    UNIQUE (project_id, build_id, kind),
    CHECK ((state = 'open') = (closed_at IS NULL)),
    CHECK (state = 'settled' OR amount_micros = 0)
) STRICT;
CREATE INDEX gateway_billing_sessions_by_owner ON gateway_billing_sessions (owner_id, id);
CREATE INDEX gateway_billing_sessions_by_time ON gateway_billing_sessions (owner_id, opened_at);
CREATE INDEX gateway_billing_sessions_open ON gateway_billing_sessions (owner_id) WHERE state = 'open';
CREATE INDEX gateway_billing_sessions_untold ON gateway_billing_sessions (tell_at) WHERE told_at IS NULL AND state <> 'open';

-- +goose StatementBegin
CREATE TRIGGER gateway_billing_sessions_closed BEFORE UPDATE ON gateway_billing_sessions
WHEN OLD.state <> 'open' AND (NEW.state <> OLD.state OR NEW.amount_micros <> OLD.amount_micros)
BEGIN SELECT RAISE(ABORT, 'a closed session never changes'); END;
-- +goose StatementEnd

-- What was used, once each: entry_key says what of.
CREATE TABLE gateway_billing_entries (
    entry_key     TEXT NOT NULL PRIMARY KEY,
    session_id    TEXT NOT NULL REFERENCES gateway_billing_sessions (id),
    meter         TEXT NOT NULL,
    quantity      INTEGER NOT NULL CHECK (quantity >= 0),
    unit          TEXT NOT NULL,
    amount_micros INTEGER NOT NULL CHECK (amount_micros >= 0),
    at            INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX gateway_billing_entries_by_session ON gateway_billing_entries (session_id);

-- Double entry: the postings of an entry sum to nothing.
CREATE TABLE gateway_billing_postings (
    entry_key     TEXT NOT NULL REFERENCES gateway_billing_entries (entry_key),
    account       TEXT NOT NULL,
    amount_micros INTEGER NOT NULL,
    PRIMARY KEY (entry_key, account)
) STRICT, WITHOUT ROWID;
CREATE INDEX gateway_billing_postings_by_account ON gateway_billing_postings (account);

CREATE TABLE gateway_billing_accounts (
    account        TEXT NOT NULL PRIMARY KEY,
    balance_micros INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose StatementBegin
CREATE TRIGGER gateway_billing_entries_no_update BEFORE UPDATE ON gateway_billing_entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER gateway_billing_postings_no_update BEFORE UPDATE ON gateway_billing_postings
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER gateway_billing_postings_no_delete BEFORE DELETE ON gateway_billing_postings
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
-- +goose StatementEnd

-- Users and sessions whose tokens are refused before they end.
CREATE TABLE gateway_denied (
    kind       TEXT NOT NULL CHECK (kind IN ('user', 'session')),
    subject    TEXT NOT NULL,
    reason     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;

-- The gateway's own chain: its database may be another than the worker's.
CREATE TABLE gateway_audit_head (
    chain TEXT NOT NULL PRIMARY KEY,
    seq   INTEGER NOT NULL,
    hash  TEXT NOT NULL
) STRICT;
INSERT INTO gateway_audit_head (chain, seq, hash) VALUES ('gateway', 0, '');

CREATE TABLE gateway_audit (
    chain   TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    prev    TEXT NOT NULL,
    hash    TEXT NOT NULL,
    at      INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    data    TEXT NOT NULL,
    PRIMARY KEY (chain, seq),
    UNIQUE (chain, prev)
) STRICT;

-- +goose StatementBegin
CREATE TRIGGER gateway_audit_no_update BEFORE UPDATE ON gateway_audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER gateway_audit_no_delete BEFORE DELETE ON gateway_audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
-- +goose StatementEnd

-- +goose Down
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
