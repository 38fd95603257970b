-- Which build a build repairs, and which packages a build has fetched.

-- +goose Up

ALTER TABLE worker_builds ADD COLUMN repairs TEXT COLLATE "C" REFERENCES worker_builds (id);

ALTER TABLE worker_builds ADD COLUMN packages INTEGER NOT NULL DEFAULT 0;

CREATE TABLE worker_build_packages (
    build_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES worker_builds (id),
    packages TEXT NOT NULL -- JSON
);

-- +goose Down

DROP TABLE worker_build_packages;
ALTER TABLE worker_builds DROP COLUMN packages;
ALTER TABLE worker_builds DROP COLUMN repairs;
