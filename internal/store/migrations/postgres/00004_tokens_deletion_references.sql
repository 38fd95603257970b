-- Deleted projects, service tokens, and what became of reference ids.

-- +goose Up

-- A deleted project keeps its rows: its id and its key are never used again.
ALTER TABLE worker_projects ADD COLUMN deleted_at BIGINT CHECK ((state = 'deleted') = (deleted_at IS NOT NULL));
CREATE INDEX worker_projects_by_service ON worker_projects (created_by_service, id);

CREATE TRIGGER worker_projects_deleted BEFORE UPDATE OF state ON worker_projects FOR EACH ROW
WHEN (OLD.state = 'deleted' AND NEW.state <> OLD.state)
EXECUTE FUNCTION worker_refuse('a deleted project stays deleted');

-- When the last attempt began.
ALTER TABLE worker_builds ADD COLUMN claimed_at BIGINT;
UPDATE worker_builds SET claimed_at = started_at WHERE state IN ('building', 'canceling');

-- Of a secret only its sha256 is kept: it is shown once, when it is made.
CREATE TABLE worker_tokens (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name         TEXT COLLATE "C" NOT NULL CHECK (name <> ''),
    secret_hash  TEXT COLLATE "C" NOT NULL UNIQUE CHECK (length(secret_hash) = 64),
    principal    TEXT COLLATE "C" NOT NULL CHECK (principal <> ''),
    service      TEXT COLLATE "C" NOT NULL CHECK (service <> ''),
    scopes       TEXT COLLATE "C" NOT NULL, -- with a space between
    legacy_ids   INTEGER NOT NULL CHECK (legacy_ids IN (0, 1)),
    created_at   BIGINT NOT NULL,
    last_used_at BIGINT,
    expires_at   BIGINT,
    revoked_at   BIGINT
);
CREATE UNIQUE INDEX worker_tokens_live_name ON worker_tokens (name) WHERE revoked_at IS NULL;

CREATE TRIGGER worker_tokens_revoked BEFORE UPDATE OF revoked_at ON worker_tokens FOR EACH ROW
WHEN (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
EXECUTE FUNCTION worker_refuse('a revoked token stays revoked');

-- One row per problem that was answered, for whoever is asked about it.
CREATE TABLE reference_ids (
    reference_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    code         TEXT COLLATE "C" NOT NULL,
    status       INTEGER NOT NULL,
    message      TEXT COLLATE "C" NOT NULL,
    cause        TEXT COLLATE "C" NOT NULL,
    method       TEXT COLLATE "C" NOT NULL,
    path         TEXT COLLATE "C" NOT NULL,
    request_id   TEXT COLLATE "C" NOT NULL,
    trace_id     TEXT COLLATE "C" NOT NULL,
    user_id      TEXT COLLATE "C" NOT NULL,
    project_id   TEXT COLLATE "C" NOT NULL,
    build_id     TEXT COLLATE "C" NOT NULL,
    role         TEXT COLLATE "C" NOT NULL CHECK (role IN ('worker', 'gateway')),
    at           BIGINT NOT NULL
);
CREATE INDEX reference_ids_by_age ON reference_ids (at);

-- +goose Down
DROP TABLE reference_ids;
DROP TABLE worker_tokens;
ALTER TABLE worker_builds DROP COLUMN claimed_at;
DROP TRIGGER worker_projects_deleted ON worker_projects;
DROP INDEX worker_projects_by_service;
ALTER TABLE worker_projects DROP COLUMN deleted_at;
