-- Fair queueing, stored places in the queue, the window for creates without a
-- key, and the feed of events.

-- +goose Up
ALTER TABLE worker_builds ADD COLUMN owner_id TEXT NOT NULL DEFAULT '';
UPDATE worker_builds SET owner_id = (SELECT owner_id FROM worker_projects p WHERE p.id = project_id);
-- Claims go by (fair_rank, id). A build's rank is one more than its owner's last
-- that waits, so owners take turns; see docs/architecture.md.
ALTER TABLE worker_builds ADD COLUMN fair_rank INTEGER NOT NULL DEFAULT 0;
ALTER TABLE worker_builds ADD COLUMN cache_state TEXT NOT NULL DEFAULT '';
DROP INDEX worker_builds_queue;
CREATE INDEX worker_builds_queue ON worker_builds (fair_rank, id) WHERE state = 'queued';
CREATE INDEX worker_builds_queue_by_owner ON worker_builds (owner_id, fair_rank) WHERE state = 'queued';
CREATE INDEX worker_builds_queue_by_age ON worker_builds (runnable_at) WHERE state = 'queued';
CREATE INDEX worker_builds_by_end ON worker_builds (finished_at) WHERE started_at IS NOT NULL AND finished_at IS NOT NULL;
CREATE INDEX worker_builds_by_source ON worker_builds (source_digest);

-- What the first answer said of the queue belongs to the stored answer.
ALTER TABLE worker_idempotency_keys ADD COLUMN queue_ahead INTEGER;
ALTER TABLE worker_idempotency_keys ADD COLUMN eta_at INTEGER;
CREATE INDEX worker_idempotency_keys_by_age ON worker_idempotency_keys (created_at);

-- One row per request without a key, good until expires_at: an equal request of
-- the same owner gets its answer.
CREATE TABLE worker_create_guard (
    owner_id    TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    project_id  TEXT NOT NULL,
    request_id  TEXT NOT NULL,
    body        BLOB NOT NULL,
    queue_ahead INTEGER,
    eta_at      INTEGER,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (owner_id, fingerprint)
) STRICT, WITHOUT ROWID;
CREATE INDEX worker_create_guard_by_end ON worker_create_guard (expires_at);

-- One locked row decides who gives feed positions and which comes next. The
-- generation rises when a backup is restored: cursors of before start afresh.
CREATE TABLE worker_feed (
    name         TEXT NOT NULL PRIMARY KEY,
    generation   INTEGER NOT NULL,
    position     INTEGER NOT NULL,
    holder       TEXT NOT NULL,
    holder_until INTEGER NOT NULL
) STRICT;
INSERT INTO worker_feed (name, generation, position, holder, holder_until) VALUES ('worker', 1, 0, '', 0);
CREATE INDEX worker_events_unfed ON worker_events (project_id, seq) WHERE feed_pos IS NULL;

-- +goose Down
DROP TABLE worker_feed;
DROP TABLE worker_create_guard;
