-- Tables of the worker. Times are microseconds since 1970 UTC, ids canonical
-- UUID text, digests lower-case hex, JSON is text. The constraints are the
-- promises: what they forbid cannot happen, whatever the code does.

-- +goose Up

-- One row per answered request with a key. Inserted first, so that of two equal
-- requests one waits for the other and then finds its answer.
CREATE TABLE worker_idempotency_keys (
    principal      TEXT NOT NULL,
    key            TEXT NOT NULL,
    operation      TEXT NOT NULL,
    fp_version     INTEGER NOT NULL,
    fingerprint    TEXT NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('done')),
    status         INTEGER NOT NULL,
    body           BLOB,
    resource_id    TEXT,
    request_id     TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    body_pruned_at INTEGER,
    PRIMARY KEY (principal, key)
) STRICT;

CREATE TABLE worker_projects (
    id                  TEXT NOT NULL PRIMARY KEY,
    owner_id            TEXT NOT NULL CHECK (owner_id <> ''),
    create_principal    TEXT NOT NULL,
    create_key          TEXT NOT NULL,
    created_by_service  TEXT NOT NULL CHECK (created_by_service <> ''),
    id_source           TEXT NOT NULL CHECK (id_source IN ('server', 'client')),
    state               TEXT NOT NULL CHECK (state IN ('active', 'deleting', 'deleted')),
    last_build_seq      INTEGER NOT NULL CHECK (last_build_seq >= 1),
    last_event_seq      INTEGER NOT NULL CHECK (last_event_seq >= 1),
    last_version_number INTEGER NOT NULL DEFAULT 0,
    current_version_id  TEXT REFERENCES worker_versions (id) DEFERRABLE INITIALLY DEFERRED,
    current_build_seq   INTEGER NOT NULL DEFAULT 0,
    pinned              INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
    created_at          INTEGER NOT NULL,
    -- Outlives the pruning of the key row: one key makes one project, for ever.
    UNIQUE (create_principal, create_key),
    CHECK ((current_version_id IS NULL) = (current_build_seq = 0)),
    CHECK (current_build_seq <= last_build_seq)
) STRICT;
CREATE INDEX worker_projects_by_owner ON worker_projects (owner_id, id);

CREATE TABLE worker_builds (
    id                TEXT NOT NULL PRIMARY KEY,
    project_id        TEXT NOT NULL REFERENCES worker_projects (id) DEFERRABLE INITIALLY DEFERRED,
    seq               INTEGER NOT NULL CHECK (seq >= 1),
    state             TEXT NOT NULL CHECK (state IN
                        ('queued', 'building', 'canceling', 'completed', 'failed', 'canceled', 'superseded')),
    step              TEXT NOT NULL DEFAULT '',
    epoch             INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    attempt           INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    max_attempts      INTEGER NOT NULL CHECK (max_attempts >= 1),
    runnable_at       INTEGER NOT NULL,
    runner_id         TEXT,
    lease_until       INTEGER,
    cancel_reason     TEXT,
    cancel_deadline   INTEGER,
    superseded_by     TEXT REFERENCES worker_builds (id) DEFERRABLE INITIALLY DEFERRED,
    failure_class     TEXT,
    failure           TEXT,
    reference_id      TEXT NOT NULL UNIQUE,
    runner            TEXT NOT NULL DEFAULT '',
    runner_reason     TEXT NOT NULL DEFAULT '',
    isolation         TEXT NOT NULL DEFAULT '',
    prompt            TEXT NOT NULL,
    template          TEXT NOT NULL,
    metadata          TEXT NOT NULL,
    source_digest     TEXT NOT NULL CHECK (length(source_digest) = 64),
    source_files      INTEGER NOT NULL,
    source_bytes      INTEGER NOT NULL,
    log_bytes         INTEGER NOT NULL DEFAULT 0,
    created_by        TEXT NOT NULL,
    request_id        TEXT NOT NULL,
    queued_at         INTEGER NOT NULL,
    started_at        INTEGER,
    finished_at       INTEGER,
    UNIQUE (project_id, seq),
    CHECK (attempt <= max_attempts),
    CHECK ((state IN ('completed', 'failed', 'canceled', 'superseded')) = (finished_at IS NOT NULL)),
    CHECK ((state IN ('building', 'canceling')) = (lease_until IS NOT NULL)),
    CHECK (state NOT IN ('building', 'canceling') OR runner_id IS NOT NULL),
    CHECK ((state = 'canceling') = (cancel_deadline IS NOT NULL)),
    CHECK (state NOT IN ('canceling', 'canceled', 'superseded') OR cancel_reason IS NOT NULL),
    CHECK ((state = 'failed') = (failure_class IS NOT NULL)),
    CHECK ((state = 'failed') = (failure IS NOT NULL)),
    CHECK ((state = 'superseded') = (superseded_by IS NOT NULL) OR state = 'canceling')
) STRICT;
-- At most one build of a project runs, at most one waits.
CREATE UNIQUE INDEX worker_builds_one_running ON worker_builds (project_id) WHERE state IN ('building', 'canceling');
CREATE UNIQUE INDEX worker_builds_one_queued ON worker_builds (project_id) WHERE state = 'queued';
CREATE INDEX worker_builds_queue ON worker_builds (runnable_at, id) WHERE state = 'queued';
CREATE INDEX worker_builds_leases ON worker_builds (lease_until) WHERE state IN ('building', 'canceling');

-- +goose StatementBegin
CREATE TRIGGER worker_builds_terminal BEFORE UPDATE ON worker_builds
WHEN OLD.state IN ('completed', 'failed', 'canceled', 'superseded') AND NEW.state <> OLD.state
BEGIN SELECT RAISE(ABORT, 'a terminal build state never changes'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER worker_builds_epoch BEFORE UPDATE OF epoch ON worker_builds
WHEN NEW.epoch < OLD.epoch
BEGIN SELECT RAISE(ABORT, 'an epoch never goes back'); END;
-- +goose StatementEnd

-- A row exists if and only if its build completed; only finalize inserts.
CREATE TABLE worker_versions (
    id              TEXT NOT NULL PRIMARY KEY,
    project_id      TEXT NOT NULL REFERENCES worker_projects (id) DEFERRABLE INITIALLY DEFERRED,
    build_id        TEXT NOT NULL UNIQUE REFERENCES worker_builds (id) DEFERRABLE INITIALLY DEFERRED,
    build_seq       INTEGER NOT NULL,
    build_epoch     INTEGER NOT NULL CHECK (build_epoch >= 1),
    number          INTEGER NOT NULL CHECK (number >= 1),
    manifest_digest TEXT NOT NULL CHECK (length(manifest_digest) = 64),
    files           INTEGER NOT NULL,
    bytes           INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    UNIQUE (project_id, number)
) STRICT;

-- +goose StatementBegin
CREATE TRIGGER worker_versions_born BEFORE INSERT ON worker_versions
WHEN (SELECT state FROM worker_builds WHERE id = NEW.build_id) IS NOT 'completed'
BEGIN SELECT RAISE(ABORT, 'a version needs a completed build'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER worker_versions_immutable BEFORE UPDATE ON worker_versions
BEGIN SELECT RAISE(ABORT, 'a version never changes'); END;
-- +goose StatementEnd

CREATE TABLE worker_events (
    project_id  TEXT NOT NULL REFERENCES worker_projects (id) DEFERRABLE INITIALLY DEFERRED,
    seq         INTEGER NOT NULL CHECK (seq >= 1),
    type        TEXT NOT NULL,
    build_id    TEXT,
    build_epoch INTEGER NOT NULL DEFAULT 0,
    data        TEXT NOT NULL,
    request_id  TEXT NOT NULL,
    at          INTEGER NOT NULL,
    feed_pos    INTEGER UNIQUE,
    PRIMARY KEY (project_id, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX worker_events_by_build ON worker_events (build_id, seq);

CREATE TABLE worker_build_logs (
    build_id     TEXT NOT NULL REFERENCES worker_builds (id),
    start_offset INTEGER NOT NULL CHECK (start_offset >= 0),
    data         BLOB NOT NULL CHECK (length(data) > 0),
    PRIMARY KEY (build_id, start_offset)
) STRICT, WITHOUT ROWID;

-- One locked head row, not "the newest row", decides what comes next: that is
-- what makes a fork impossible.
CREATE TABLE worker_audit_head (
    chain TEXT NOT NULL PRIMARY KEY,
    seq   INTEGER NOT NULL,
    hash  TEXT NOT NULL
) STRICT;
INSERT INTO worker_audit_head (chain, seq, hash) VALUES ('worker', 0, '');

CREATE TABLE worker_audit (
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
CREATE TRIGGER worker_audit_no_update BEFORE UPDATE ON worker_audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER worker_audit_no_delete BEFORE DELETE ON worker_audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
-- +goose StatementEnd

-- +goose Down
DROP TABLE worker_audit;
DROP TABLE worker_audit_head;
DROP TABLE worker_build_logs;
DROP TABLE worker_events;
DROP TABLE worker_versions;
DROP TABLE worker_builds;
DROP TABLE worker_projects;
DROP TABLE worker_idempotency_keys;
