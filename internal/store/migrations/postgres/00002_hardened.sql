-- Fair queueing, stored places in the queue, the window for creates without a
-- key, and the feed of events.

-- +goose Up
ALTER TABLE worker_builds ADD COLUMN owner_id TEXT COLLATE "C" NOT NULL DEFAULT '';
UPDATE worker_builds SET owner_id = (SELECT owner_id FROM worker_projects p WHERE p.id = project_id);
-- Claims go by (fair_rank, id). A build's rank is one more than its owner's last
-- that waits, so owners take turns; see docs/architecture.md.
ALTER TABLE worker_builds ADD COLUMN fair_rank BIGINT NOT NULL DEFAULT 0;
ALTER TABLE worker_builds ADD COLUMN cache_state TEXT COLLATE "C" NOT NULL DEFAULT '';
DROP INDEX worker_builds_queue;
CREATE INDEX worker_builds_queue ON worker_builds (fair_rank, id) WHERE state = 'queued';
CREATE INDEX worker_builds_queue_by_owner ON worker_builds (owner_id, fair_rank) WHERE state = 'queued';
CREATE INDEX worker_builds_queue_by_age ON worker_builds (runnable_at) WHERE state = 'queued';
CREATE INDEX worker_builds_by_end ON worker_builds (finished_at) WHERE started_at IS NOT NULL AND finished_at IS NOT NULL;
CREATE INDEX worker_builds_by_source ON worker_builds (source_digest);

-- What the first answer said of the queue belongs to the stored answer.
ALTER TABLE worker_idempotency_keys ADD COLUMN queue_ahead BIGINT;
ALTER TABLE worker_idempotency_keys ADD COLUMN eta_at BIGINT;
CREATE INDEX worker_idempotency_keys_by_age ON worker_idempotency_keys (created_at);

-- One row per request without a key, good until expires_at: an equal request of
-- the same owner gets its answer.
CREATE TABLE worker_create_guard (
    owner_id    TEXT COLLATE "C" NOT NULL,
    fingerprint TEXT COLLATE "C" NOT NULL,
    project_id  TEXT COLLATE "C" NOT NULL,
    request_id  TEXT COLLATE "C" NOT NULL,
    body        BYTEA NOT NULL,
    queue_ahead BIGINT,
    eta_at      BIGINT,
    expires_at  BIGINT NOT NULL,
    PRIMARY KEY (owner_id, fingerprint)
);
CREATE INDEX worker_create_guard_by_end ON worker_create_guard (expires_at);

-- One locked row decides who gives feed positions and which comes next. The
-- generation rises when a backup is restored: cursors of before start afresh.
CREATE TABLE worker_feed (
    name         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    generation   BIGINT NOT NULL,
    position     BIGINT NOT NULL,
    holder       TEXT COLLATE "C" NOT NULL,
    holder_until BIGINT NOT NULL
);
INSERT INTO worker_feed (name, generation, position, holder, holder_until) VALUES ('worker', 1, 0, '', 0);
CREATE INDEX worker_events_unfed ON worker_events (project_id, seq) WHERE feed_pos IS NULL;

-- Builds leave the head of the queue's index all the time: clean up behind them.
ALTER TABLE worker_builds SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

-- +goose StatementBegin
CREATE FUNCTION worker_now() RETURNS BIGINT LANGUAGE sql VOLATILE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION worker_audit_field(field TEXT) RETURNS BYTEA LANGUAGE sql IMMUTABLE AS
$$ SELECT int8send(octet_length(field)::bigint) || convert_to(field, 'UTF8') $$;
-- +goose StatementEnd

-- Appends to the audit chain. One UPDATE locks the head, takes its hash as the
-- predecessor and leaves the next, so that nobody else can build on the same one.
-- The hash is that of auditHash in audit.go.
ALTER TABLE worker_audit_head ADD COLUMN prev TEXT COLLATE "C" NOT NULL DEFAULT '';
-- +goose StatementBegin
CREATE FUNCTION worker_append_audit(p_at BIGINT, p_actor TEXT, p_action TEXT, p_subject TEXT, p_data TEXT)
RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    v_entry BYTEA := int8send(p_at) || worker_audit_field(p_actor) || worker_audit_field(p_action)
        || worker_audit_field(p_subject) || worker_audit_field(p_data);
    v_head  worker_audit_head;
BEGIN
    UPDATE worker_audit_head
    SET seq = seq + 1, prev = hash, hash = encode(sha256(worker_audit_field(hash) || int8send(seq + 1) || v_entry), 'hex')
    WHERE chain = 'worker' RETURNING * INTO STRICT v_head;
    INSERT INTO worker_audit (chain, seq, prev, hash, at, actor, action, subject, data)
    VALUES ('worker', v_head.seq, v_head.prev, v_head.hash, p_at, p_actor, p_action, p_subject, p_data);
END $$;
-- +goose StatementEnd

-- Creates a project and its first build, or finds what a request with the same
-- key, or within the window, has got. It is what createInSteps in creation.go
-- does, in one call: see there for the order and its reasons. It fails on no
-- duplicate, so that it can be sent in one round trip with its COMMIT.
-- +goose StatementBegin
CREATE FUNCTION worker_create_preview(
    p_principal TEXT, p_key TEXT, p_operation TEXT, p_fp_version BIGINT, p_fingerprint TEXT, p_window BIGINT,
    p_status BIGINT, p_body BYTEA, p_request_id TEXT,
    p_project_id TEXT, p_owner_id TEXT, p_create_key TEXT, p_service TEXT, p_id_source TEXT,
    p_build_id TEXT, p_max_attempts BIGINT, p_reference_id TEXT, p_prompt TEXT, p_template TEXT, p_metadata TEXT,
    p_source_digest TEXT, p_source_files BIGINT, p_source_bytes BIGINT,
    p_created_data TEXT, p_queued_data TEXT, p_actor TEXT, p_action TEXT, p_audit_data TEXT,
    p_owner_cap BIGINT, p_total_cap BIGINT, p_fair BOOLEAN, p_far BIGINT, p_eta_base BIGINT, p_eta_step BIGINT,
    OUT outcome TEXT, OUT o_operation TEXT, OUT o_fingerprint TEXT, OUT o_status BIGINT, OUT o_body BYTEA,
    OUT o_resource_id TEXT, OUT o_request_id TEXT, OUT o_ahead BIGINT, OUT o_eta BIGINT
) LANGUAGE plpgsql AS $$
DECLARE
    v_now  BIGINT := worker_now();
    v_rank BIGINT;
    v_mine BIGINT;
BEGIN
    LOOP -- again when an equal request has come between
        IF p_key <> '' THEN
            SELECT 'known', operation, fingerprint, status, body, resource_id, request_id, queue_ahead, eta_at
            INTO outcome, o_operation, o_fingerprint, o_status, o_body, o_resource_id, o_request_id, o_ahead, o_eta
            FROM worker_idempotency_keys WHERE principal = p_principal AND key = p_key;
            IF FOUND THEN RETURN; END IF;
            SELECT 'pruned', id INTO outcome, o_resource_id
            FROM worker_projects WHERE create_principal = p_principal AND create_key = p_key;
            IF FOUND THEN RETURN; END IF;
        ELSE
            SELECT 'window', body, project_id, request_id, queue_ahead, eta_at
            INTO outcome, o_body, o_resource_id, o_request_id, o_ahead, o_eta
            FROM worker_create_guard WHERE owner_id = p_owner_id AND fingerprint = p_fingerprint AND expires_at > v_now;
            IF FOUND THEN RETURN; END IF;
        END IF;
        IF p_id_source = 'client' AND EXISTS (SELECT 1 FROM worker_projects WHERE id = p_project_id) THEN
            outcome := 'id_taken';
            RETURN;
        END IF;

        SELECT max(fair_rank) + 1, count(*) INTO v_rank, v_mine FROM worker_builds
        WHERE owner_id = p_owner_id AND state = 'queued';
        IF v_mine >= p_owner_cap THEN
            outcome := 'owner_full';
            RETURN;
        END IF;
        IF p_total_cap > 0 AND p_total_cap <=
            (SELECT count(*) FROM (SELECT 1 FROM worker_builds WHERE state = 'queued' LIMIT p_total_cap) q) THEN
            outcome := 'full';
            RETURN;
        END IF;
        v_rank := CASE WHEN p_fair THEN COALESCE(v_rank, (SELECT fair_rank FROM worker_builds WHERE state = 'queued'
            ORDER BY fair_rank, id LIMIT 1), 0) ELSE 0 END;
        SELECT count(*) INTO o_ahead FROM (SELECT 1 FROM worker_builds
            WHERE state = 'queued' AND (fair_rank, id) < (v_rank, p_build_id) ORDER BY fair_rank, id LIMIT 100) q;
        IF o_ahead = 100 THEN
            o_ahead := greatest(100, p_far);
        END IF;
        o_eta := v_now + p_eta_base + p_eta_step * o_ahead;

        IF p_key <> '' THEN
            INSERT INTO worker_idempotency_keys (principal, key, operation, fp_version, fingerprint, state, status, body,
                resource_id, request_id, created_at, queue_ahead, eta_at)
            VALUES (p_principal, p_key, p_operation, p_fp_version, p_fingerprint, 'done', p_status, p_body,
                p_project_id, p_request_id, v_now, o_ahead, o_eta)
            ON CONFLICT (principal, key) DO NOTHING;
            EXIT WHEN FOUND;
        ELSE
            EXIT WHEN p_window = 0;
            INSERT INTO worker_create_guard AS g (owner_id, fingerprint, project_id, request_id, body, queue_ahead, eta_at, expires_at)
            VALUES (p_owner_id, p_fingerprint, p_project_id, p_request_id, p_body, o_ahead, o_eta, v_now + p_window)
            ON CONFLICT (owner_id, fingerprint) DO UPDATE SET project_id = excluded.project_id, request_id = excluded.request_id,
                body = excluded.body, queue_ahead = excluded.queue_ahead, eta_at = excluded.eta_at, expires_at = excluded.expires_at
            WHERE g.expires_at <= v_now;
            EXIT WHEN FOUND;
        END IF;
    END LOOP;

    INSERT INTO worker_projects (id, owner_id, create_principal, create_key, created_by_service, id_source,
        state, last_build_seq, last_event_seq, created_at)
    VALUES (p_project_id, p_owner_id, p_principal, p_create_key, p_service, p_id_source, 'active', 1, 2, v_now);
    INSERT INTO worker_builds (id, project_id, owner_id, seq, state, max_attempts, runnable_at, fair_rank, reference_id,
        prompt, template, metadata, source_digest, source_files, source_bytes, created_by, request_id, queued_at)
    VALUES (p_build_id, p_project_id, p_owner_id, 1, 'queued', p_max_attempts, v_now, v_rank, p_reference_id,
        p_prompt, p_template, p_metadata, p_source_digest, p_source_files, p_source_bytes, p_service, p_request_id, v_now);
    INSERT INTO worker_events (project_id, seq, type, build_id, build_epoch, data, request_id, at)
    VALUES (p_project_id, 1, 'project.created', p_build_id, 0, p_created_data, p_request_id, v_now),
           (p_project_id, 2, 'build.queued', p_build_id, 0, p_queued_data, p_request_id, v_now);
    PERFORM worker_append_audit(v_now, p_actor, p_action, 'project/' || p_project_id, p_audit_data);
    outcome := 'created';
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION worker_create_preview;
DROP FUNCTION worker_append_audit;
DROP FUNCTION worker_audit_field;
DROP FUNCTION worker_now;
ALTER TABLE worker_audit_head DROP COLUMN prev;
DROP TABLE worker_feed;
DROP TABLE worker_create_guard;
