-- Tickets for streams of browsers that cannot send a header: good once, for a
-- minute.

-- +goose Up
CREATE TABLE gateway_stream_tickets (
    hash             TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (length(hash) = 64),
    user_id          TEXT COLLATE "C" NOT NULL,
    session_id       TEXT COLLATE "C" NOT NULL,
    token_expires_at BIGINT,
    expires_at       BIGINT NOT NULL
);
CREATE INDEX gateway_stream_tickets_by_end ON gateway_stream_tickets (expires_at);

-- +goose Down
DROP TABLE gateway_stream_tickets;
