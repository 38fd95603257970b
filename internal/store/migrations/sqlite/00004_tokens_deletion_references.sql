-- Deleted projects, service tokens, and what became of reference ids.

-- +goose Up

-- A deleted project keeps its rows: its id and its key are never used again.
ALTER TABLE worker_projects ADD COLUMN deleted_at INTEGER CHECK ((state = 'deleted') = (deleted_at IS NOT NULL));
CREATE INDEX worker_projects_by_service ON worker_projects (created_by_service, id);

-- +goose StatementBegin
CREATE TRIGGER worker_projects_deleted BEFORE UPDATE OF state ON worker_projects
WHEN OLD.state = 'deleted' AND NEW.state <> OLD.state
BEGIN SELECT RAISE(ABORT, 'a deleted project stays deleted'); END;
-- +goose StatementEnd

-- When the last attempt began.
ALTER TABLE worker_builds ADD COLUMN claimed_at INTEGER;
UPDATE worker_builds SET claimed_at = started_at WHERE state IN ('building', 'canceling');

-- Of a secret only its sha256 is kept: it is shown once, when it is made.
CREATE TABLE worker_tokens (
    id           TEXT NOT NULL PRIMARY KEY,
    name         TEXT NOT NULL CHECK (name <> ''),
    secret_hash  TEXT NOT NULL UNIQUE CHECK (length(secret_hash) = 64),
    principal    TEXT NOT NULL CHECK (principal <> ''),
    service      TEXT NOT NULL CHECK (service <> ''),
    scopes       TEXT NOT NULL, -- with a space between
    legacy_ids   INTEGER NOT NULL CHECK (legacy_ids IN (0, 1)),
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    expires_at   INTEGER,
    revoked_at   INTEGER
) STRICT;
CREATE UNIQUE INDEX worker_tokens_live_name ON worker_tokens (name) WHERE revoked_at IS NULL;

-- +goose StatementBegin
CREATE TRIGGER worker_tokens_revoked BEFORE UPDATE OF revoked_at ON worker_tokens
WHEN OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS NOT OLD.revoked_at
BEGIN SELECT RAISE(ABORT, 'a revoked token stays revoked'); END;
-- +goose StatementEnd

-- One row per problem that was answered, for whoever is asked about it.
CREATE TABLE reference_ids (
    reference_id TEXT NOT NULL PRIMARY KEY,
    code         TEXT NOT NULL,
    status       INTEGER NOT NULL,
    message      TEXT NOT NULL,
    cause        TEXT NOT NULL,
    method       TEXT NOT NULL,
    path         TEXT NOT NULL,
    request_id   TEXT NOT NULL,
    trace_id     TEXT NOT NULL,
    user_id      TEXT NOT NULL,
    project_id   TEXT NOT NULL,
    build_id     TEXT NOT NULL,
    role         TEXT NOT NULL CHECK (role IN ('worker', 'gateway')),
    at           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX reference_ids_by_age ON reference_ids (at);

-- +goose Down
DROP TABLE reference_ids;
DROP TABLE worker_tokens;
ALTER TABLE worker_builds DROP COLUMN claimed_at;
DROP TRIGGER worker_projects_deleted;
DROP INDEX worker_projects_by_service;
