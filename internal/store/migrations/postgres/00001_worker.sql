-- Tables of the worker, as on SQLite: text sorts by its bytes. Times are
-- microseconds since 1970 UTC, ids canonical UUID text, digests lower-case hex,
-- JSON is text. The constraints are the promises: what they forbid cannot
-- happen, whatever the code does.

-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION worker_refuse() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

-- One row per answered request with a key. Inserted first, so that of two equal
-- requests one waits for the other and then finds its answer.
CREATE TABLE worker_idempotency_keys (
    principal      TEXT COLLATE "C" NOT NULL,
    key            TEXT COLLATE "C" NOT NULL,
    operation      TEXT COLLATE "C" NOT NULL,
    fp_version     BIGINT NOT NULL,
    fingerprint    TEXT COLLATE "C" NOT NULL,
    state          TEXT COLLATE "C" NOT NULL CHECK (state IN ('done')),
    status         BIGINT NOT NULL,
    body           BYTEA,
    resource_id    TEXT COLLATE "C",
    request_id     TEXT COLLATE "C" NOT NULL,
    created_at     BIGINT NOT NULL,
    body_pruned_at BIGINT,
    PRIMARY KEY (principal, key)
);

CREATE TABLE worker_projects (
    id                  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    owner_id            TEXT COLLATE "C" NOT NULL CHECK (owner_id <> ''),
    create_principal    TEXT COLLATE "C" NOT NULL,
    create_key          TEXT COLLATE "C" NOT NULL,
    created_by_service  TEXT COLLATE "C" NOT NULL CHECK (created_by_service <> ''),
    id_source           TEXT COLLATE "C" NOT NULL CHECK (id_source IN ('server', 'client')),
    state               TEXT COLLATE "C" NOT NULL CHECK (state IN ('active', 'deleting', 'deleted')),
    last_build_seq      BIGINT NOT NULL CHECK (last_build_seq >= 1),
    last_event_seq      BIGINT NOT NULL CHECK (last_event_seq >= 1),
    last_version_number BIGINT NOT NULL DEFAULT 0,
    current_version_id  TEXT COLLATE "C",
    current_build_seq   BIGINT NOT NULL DEFAULT 0,
    pinned              BIGINT NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
    created_at          BIGINT NOT NULL,
    -- Outlives the pruning of the key row: one key makes one project, for ever.
    UNIQUE (create_principal, create_key),
    CHECK ((current_version_id IS NULL) = (current_build_seq = 0)),
    CHECK (current_build_seq <= last_build_seq)
);
CREATE INDEX worker_projects_by_owner ON worker_projects (owner_id, id);

CREATE TABLE worker_builds (
    id                TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    project_id        TEXT COLLATE "C" NOT NULL REFERENCES worker_projects (id) DEFERRABLE INITIALLY DEFERRED,
    seq               BIGINT NOT NULL CHECK (seq >= 1),
    state             TEXT COLLATE "C" NOT NULL CHECK (state IN
                        ('queued', 'building', 'canceling', 'completed', 'failed', 'canceled', 'superseded')),
    step              TEXT COLLATE "C" NOT NULL DEFAULT '',
    epoch             BIGINT NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    attempt           BIGINT NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    max_attempts      BIGINT NOT NULL CHECK (max_attempts >= 1),
    runnable_at       BIGINT NOT NULL,
    runner_id         TEXT COLLATE "C",
    lease_until       BIGINT,
    cancel_reason     TEXT COLLATE "C",
    cancel_deadline   BIGINT,
    superseded_by     TEXT COLLATE "C" REFERENCES worker_builds (id) DEFERRABLE INITIALLY DEFERRED,
    failure_class     TEXT COLLATE "C",
    failure           TEXT COLLATE "C",
    reference_id      TEXT COLLATE "C" NOT NULL UNIQUE,
    runner            TEXT COLLATE "C" NOT NULL DEFAULT '',
    runner_reason     TEXT COLLATE "C" NOT NULL DEFAULT '',
    isolation         TEXT COLLATE "C" NOT NULL DEFAULT '',
    prompt            TEXT COLLATE "C" NOT NULL,
    template          TEXT COLLATE "C" NOT NULL,
    metadata          TEXT COLLATE "C" NOT NULL,
    source_digest     TEXT COLLATE "C" NOT NULL CHECK (length(source_digest) = 64),
    source_files      BIGINT NOT NULL,
    source_bytes      BIGINT NOT NULL,
    log_bytes         BIGINT NOT NULL DEFAULT 0,
    created_by        TEXT COLLATE "C" NOT NULL,
    request_id        TEXT COLLATE "C" NOT NULL,
    queued_at         BIGINT NOT NULL,
    started_at        BIGINT,
    finished_at       BIGINT,
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
);
-- At most one build of a project runs, at most one waits.
CREATE UNIQUE INDEX worker_builds_one_running ON worker_builds (project_id) WHERE state IN ('building', 'canceling');
CREATE UNIQUE INDEX worker_builds_one_queued ON worker_builds (project_id) WHERE state = 'queued';
CREATE INDEX worker_builds_queue ON worker_builds (runnable_at, id) WHERE state = 'queued';
CREATE INDEX worker_builds_leases ON worker_builds (lease_until) WHERE state IN ('building', 'canceling');

CREATE TRIGGER worker_builds_terminal BEFORE UPDATE ON worker_builds FOR EACH ROW
WHEN (OLD.state IN ('completed', 'failed', 'canceled', 'superseded') AND NEW.state <> OLD.state)
EXECUTE FUNCTION worker_refuse('a terminal build state never changes');
CREATE TRIGGER worker_builds_epoch BEFORE UPDATE OF epoch ON worker_builds FOR EACH ROW
WHEN (NEW.epoch < OLD.epoch)
EXECUTE FUNCTION worker_refuse('an epoch never goes back');

-- A row exists if and only if its build completed; only finalize inserts.
CREATE TABLE worker_versions (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    project_id      TEXT COLLATE "C" NOT NULL REFERENCES worker_projects (id) DEFERRABLE INITIALLY DEFERRED,
    build_id        TEXT COLLATE "C" NOT NULL UNIQUE REFERENCES worker_builds (id) DEFERRABLE INITIALLY DEFERRED,
    build_seq       BIGINT NOT NULL,
    build_epoch     BIGINT NOT NULL CHECK (build_epoch >= 1),
    number          BIGINT NOT NULL CHECK (number >= 1),
    manifest_digest TEXT COLLATE "C" NOT NULL CHECK (length(manifest_digest) = 64),
    files           BIGINT NOT NULL,
    bytes           BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    UNIQUE (project_id, number)
);

ALTER TABLE worker_projects ADD FOREIGN KEY (current_version_id) REFERENCES worker_versions (id) DEFERRABLE INITIALLY DEFERRED;

-- +goose StatementBegin
CREATE FUNCTION worker_versions_born() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM worker_builds WHERE id = NEW.build_id AND state = 'completed') THEN
        RAISE EXCEPTION 'a version needs a completed build' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER worker_versions_born BEFORE INSERT ON worker_versions FOR EACH ROW EXECUTE FUNCTION worker_versions_born();
CREATE TRIGGER worker_versions_immutable BEFORE UPDATE ON worker_versions FOR EACH ROW
EXECUTE FUNCTION worker_refuse('a version never changes');

CREATE TABLE worker_events (
    project_id  TEXT COLLATE "C" NOT NULL REFERENCES worker_projects (id) DEFERRABLE INITIALLY DEFERRED,
    seq         BIGINT NOT NULL CHECK (seq >= 1),
    type        TEXT COLLATE "C" NOT NULL,
    build_id    TEXT COLLATE "C",
    build_epoch BIGINT NOT NULL DEFAULT 0,
    data        TEXT COLLATE "C" NOT NULL,
    request_id  TEXT COLLATE "C" NOT NULL,
    at          BIGINT NOT NULL,
    feed_pos    BIGINT UNIQUE,
    PRIMARY KEY (project_id, seq)
);
CREATE INDEX worker_events_by_build ON worker_events (build_id, seq);

CREATE TABLE worker_build_logs (
    build_id     TEXT COLLATE "C" NOT NULL REFERENCES worker_builds (id),
    start_offset BIGINT NOT NULL CHECK (start_offset >= 0),
    data         BYTEA NOT NULL CHECK (length(data) > 0),
    PRIMARY KEY (build_id, start_offset)
);

-- One locked head row, not "the newest row", decides what comes next: that is
-- what makes a fork impossible.
CREATE TABLE worker_audit_head (
    chain TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    seq   BIGINT NOT NULL,
    hash  TEXT COLLATE "C" NOT NULL
);
INSERT INTO worker_audit_head (chain, seq, hash) VALUES ('worker', 0, '');

CREATE TABLE worker_audit (
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

CREATE TRIGGER worker_audit_no_update BEFORE UPDATE ON worker_audit FOR EACH ROW
EXECUTE FUNCTION worker_refuse('the audit log is append-only');
CREATE TRIGGER worker_audit_no_delete BEFORE DELETE ON worker_audit FOR EACH ROW
EXECUTE FUNCTION worker_refuse('the audit log is append-only');
CREATE TRIGGER worker_audit_no_truncate BEFORE TRUNCATE ON worker_audit FOR EACH STATEMENT
EXECUTE FUNCTION worker_refuse('the audit log is append-only');

-- +goose Down
DROP TABLE worker_audit, worker_audit_head, worker_build_logs, worker_events, worker_versions, worker_builds,
    worker_projects, worker_idempotency_keys CASCADE;
DROP FUNCTION worker_versions_born();
DROP FUNCTION worker_refuse();
