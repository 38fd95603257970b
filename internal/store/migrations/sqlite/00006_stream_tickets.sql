-- Tickets for streams of browsers that cannot send a header: good once, for a
-- minute.

-- +goose Up
CREATE TABLE gateway_stream_tickets (
    hash             TEXT NOT NULL PRIMARY KEY CHECK (length(hash) = 64),
    user_id          TEXT NOT NULL,
    session_id       TEXT NOT NULL,
    token_expires_at INTEGER,
    expires_at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX gateway_stream_tickets_by_end ON gateway_stream_tickets (expires_at);

-- +goose Down
DROP TABLE gateway_stream_tickets;
