-- Outgoing webhooks: who is told, what is to be told to them, and what became of
-- each try.

-- +goose Up

CREATE TABLE gateway_webhook_endpoints (
    id              TEXT NOT NULL PRIMARY KEY,
    owner_id        TEXT NOT NULL,   -- '' is the operator: the events of all users
    slot            INTEGER NOT NULL CHECK (slot BETWEEN 1 AND 20), -- bounds an owner's endpoints
    url             TEXT NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
    description     TEXT NOT NULL,
    types           TEXT NOT NULL,   -- ' build.* version.activated '; '' is all
    secret          TEXT NOT NULL CHECK (secret <> ''),
    previous_secret TEXT,            -- signs too until previous_until
    previous_until  INTEGER,
    state           TEXT NOT NULL CHECK (state IN ('active', 'disabled')),
    disabled_reason TEXT NOT NULL DEFAULT '',
    failing_since   INTEGER,         -- the first failure since the last success
    created_at      INTEGER NOT NULL,
    UNIQUE (owner_id, slot),
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL)),
    CHECK ((state = 'disabled') = (disabled_reason <> ''))
) STRICT;

CREATE TABLE gateway_webhook_deliveries (
    id              TEXT NOT NULL PRIMARY KEY,
    endpoint_id     TEXT NOT NULL REFERENCES gateway_webhook_endpoints (id) ON DELETE CASCADE,
    webhook_id      TEXT NOT NULL,   -- the event's: the same in every try and replay
    replay          INTEGER NOT NULL CHECK (replay >= 0), -- 0 is the first delivery
    type            TEXT NOT NULL,
    payload         BLOB NOT NULL CHECK (length(payload) <= 20000),
    state           TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed', 'dropped')),
    attempts        INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0), -- claims; fences whoever has lost one
    next_attempt_at INTEGER,
    claimed_by      TEXT,
    claimed_until   INTEGER,
    last_status     INTEGER NOT NULL DEFAULT 0,
    last_error      TEXT NOT NULL DEFAULT '',
    created_at      INTEGER NOT NULL,
    ended_at        INTEGER,
    UNIQUE (endpoint_id, webhook_id, replay),
    CHECK ((state = 'pending') = (next_attempt_at IS NOT NULL)),
    CHECK ((state = 'pending') = (ended_at IS NULL)),
    CHECK ((claimed_by IS NULL) = (claimed_until IS NULL)),
    CHECK (state = 'pending' OR claimed_by IS NULL)
) STRICT;
CREATE INDEX gateway_webhook_deliveries_due ON gateway_webhook_deliveries (endpoint_id, next_attempt_at, id) WHERE state = 'pending';
CREATE INDEX gateway_webhook_deliveries_held ON gateway_webhook_deliveries (endpoint_id, claimed_until) WHERE claimed_until IS NOT NULL;
CREATE INDEX gateway_webhook_deliveries_list ON gateway_webhook_deliveries (endpoint_id, created_at, id);
CREATE INDEX gateway_webhook_deliveries_ended ON gateway_webhook_deliveries (state, ended_at) WHERE ended_at IS NOT NULL;

-- +goose StatementBegin
CREATE TRIGGER gateway_webhook_deliveries_terminal BEFORE UPDATE ON gateway_webhook_deliveries
WHEN OLD.state <> 'pending' AND NEW.state <> OLD.state
BEGIN SELECT RAISE(ABORT, 'a delivery that is over stays so'); END;
-- +goose StatementEnd

CREATE TABLE gateway_webhook_attempts (
    delivery_id TEXT NOT NULL REFERENCES gateway_webhook_deliveries (id) ON DELETE CASCADE,
    n           INTEGER NOT NULL CHECK (n >= 1),
    at          INTEGER NOT NULL,
    status      INTEGER NOT NULL,    -- 0: no answer
    took        INTEGER NOT NULL,    -- microseconds
    error       TEXT NOT NULL,
    excerpt     TEXT NOT NULL CHECK (length(excerpt) <= 1024),
    PRIMARY KEY (delivery_id, n)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE gateway_webhook_attempts;
DROP TABLE gateway_webhook_deliveries;
DROP TABLE gateway_webhook_endpoints;
