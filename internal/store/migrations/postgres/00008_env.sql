-- Variables of projects' builds.

-- +goose Up
CREATE TABLE worker_env (
    project_id TEXT COLLATE "C" NOT NULL REFERENCES worker_projects (id),
    name       TEXT COLLATE "C" NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
    secret     BIGINT NOT NULL CHECK (secret IN (0, 1)),
    scopes     TEXT COLLATE "C" NOT NULL CHECK (scopes IN ('install', 'build', 'install build')),
    value      BYTEA NOT NULL,   -- of a secret: sealed
    size       BIGINT NOT NULL CHECK (size BETWEEN 0 AND 32768), -- bytes of the value as it was sent
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (project_id, name)
);
CREATE INDEX worker_env_secrets ON worker_env (project_id) WHERE secret = 1;

-- +goose Down
DROP TABLE worker_env;
