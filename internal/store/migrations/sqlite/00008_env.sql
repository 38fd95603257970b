-- Variables of projects' builds.

-- +goose Up
CREATE TABLE worker_env (
    project_id TEXT NOT NULL REFERENCES worker_projects (id),
    name       TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
    secret     INTEGER NOT NULL CHECK (secret IN (0, 1)),
    scopes     TEXT NOT NULL CHECK (scopes IN ('install', 'build', 'install build')),
    value      BLOB NOT NULL,    -- of a secret: sealed
    size       INTEGER NOT NULL CHECK (size BETWEEN 0 AND 32768), -- bytes of the value as it was sent
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (project_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX worker_env_secrets ON worker_env (project_id) WHERE secret = 1;

-- +goose Down
DROP TABLE worker_env;
