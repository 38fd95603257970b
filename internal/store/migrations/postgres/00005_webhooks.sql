-- Outgoing webhooks: who is told, what is to be told to them, and what became of
-- each try.

-- +goose Up

CREATE TABLE gateway_webhook_endpoints (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    owner_id        TEXT COLLATE "C" NOT NULL,   -- '' is the operator: the events of all users
    slot            BIGINT NOT NULL CHECK (slot BETWEEN 1 AND 20), -- bounds an owner's endpoints
    url             TEXT COLLATE "C" NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
    description     TEXT COLLATE "C" NOT NULL,
    types           TEXT COLLATE "C" NOT NULL,   -- ' build.* version.activated '; '' is all
    secret          TEXT COLLATE "C" NOT NULL CHECK (secret <> ''),
    previous_secret TEXT COLLATE "C",            -- signs too until previous_until
    previous_until  BIGINT,
    state           TEXT COLLATE "C" NOT NULL CHECK (state IN ('active', 'disabled')),
    disabled_reason TEXT COLLATE "C" NOT NULL DEFAULT '',
    failing_since   BIGINT,         -- the first failure since the last success
    created_at      BIGINT NOT NULL,
    UNIQUE (owner_id, slot),
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL)),
    CHECK ((state = 'disabled') = (disabled_reason <> ''))
);

CREATE TABLE gateway_webhook_deliveries (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    endpoint_id     TEXT COLLATE "C" NOT NULL REFERENCES gateway_webhook_endpoints (id) ON DELETE CASCADE,
    webhook_id      TEXT COLLATE "C" NOT NULL,   -- the event's: the same in every try and replay
    replay          BIGINT NOT NULL CHECK (replay >= 0), -- 0 is the first delivery
    type            TEXT COLLATE "C" NOT NULL,
    payload         BYTEA NOT NULL CHECK (length(payload) <= 20000),
    state           TEXT COLLATE "C" NOT NULL CHECK (state IN ('pending', 'delivered', 'failed', 'dropped')),
    attempts        BIGINT NOT NULL DEFAULT 0 CHECK (attempts >= 0), -- claims; fences whoever has lost one
    next_attempt_at BIGINT,
    claimed_by      TEXT COLLATE "C",
    claimed_until   BIGINT,
    last_status     BIGINT NOT NULL DEFAULT 0,
    last_error      TEXT COLLATE "C" NOT NULL DEFAULT '',
    created_at      BIGINT NOT NULL,
    ended_at        BIGINT,
    UNIQUE (endpoint_id, webhook_id, replay),
    CHECK ((state = 'pending') = (next_attempt_at IS NOT NULL)),
    CHECK ((state = 'pending') = (ended_at IS NULL)),
    CHECK ((claimed_by IS NULL) = (claimed_until IS NULL)),
    CHECK (state = 'pending' OR claimed_by IS NULL)
);
CREATE INDEX gateway_webhook_deliveries_due ON gateway_webhook_deliveries (endpoint_id, next_attempt_at, id) WHERE state = 'pending';
CREATE INDEX gateway_webhook_deliveries_held ON gateway_webhook_deliveries (endpoint_id, claimed_until) WHERE claimed_until IS NOT NULL;
CREATE INDEX gateway_webhook_deliveries_list ON gateway_webhook_deliveries (endpoint_id, created_at, id);
CREATE INDEX gateway_webhook_deliveries_ended ON gateway_webhook_deliveries (state, ended_at) WHERE ended_at IS NOT NULL;

CREATE TRIGGER gateway_webhook_deliveries_terminal BEFORE UPDATE ON gateway_webhook_deliveries FOR EACH ROW
WHEN (OLD.state <> 'pending' AND NEW.state <> OLD.state)
EXECUTE FUNCTION worker_refuse('a delivery that is over stays so');

-- Deliveries leave the head of their index all the time: clean up behind them.
ALTER TABLE gateway_webhook_deliveries SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

CREATE TABLE gateway_webhook_attempts (
    delivery_id TEXT COLLATE "C" NOT NULL REFERENCES gateway_webhook_deliveries (id) ON DELETE CASCADE,
    n           BIGINT NOT NULL CHECK (n >= 1),
    at          BIGINT NOT NULL,
    status      BIGINT NOT NULL,    -- 0: no answer
    took        BIGINT NOT NULL,    -- microseconds
    error       TEXT COLLATE "C" NOT NULL,
    excerpt     TEXT COLLATE "C" NOT NULL CHECK (length(excerpt) <= 1024),
    PRIMARY KEY (delivery_id, n)
);

-- +goose Down
DROP TABLE gateway_webhook_attempts;
DROP TABLE gateway_webhook_deliveries;
DROP TABLE gateway_webhook_endpoints;
