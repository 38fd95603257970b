package store

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
)

// The bus carries hints between processes by PostgreSQL's NOTIFY. It is sent in
// a transaction of its own, after the change has committed: inside the change
// it would make all commits wait for each other.

const busChannel = "previewd"

// maxPayload is below the 8,000 bytes that PostgreSQL takes.
const maxPayload = 7000

// Publish implements event.Bus.
func (db *DB) Publish(ctx context.Context, topics []string) error {
	p, ok := db.engine.(*postgresDB)
	if !ok {
		return nil
	}
	// Hints need not survive a crash, so nobody waits for the disk.
	const publish = `SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)`
	var batch pgx.Batch
	for _, payload := range payloads(topics) {
		batch.Queue(publish, busChannel, payload)
	}
	return p.translate(p.pool.SendBatch(ctx, &batch).Close())
}

// payloads joins topics to as few messages as hold them.
func payloads(topics []string) []string {
	var list []string
	var b strings.Builder
	for _, topic := range topics {
		if b.Len()+1+len(topic) > maxPayload {
			list = append(list, b.String())
			b.Reset()
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(topic)
	}
	if b.Len() > 0 {
		list = append(list, b.String())
	}
	return list
}

// Listen implements event.Bus, on a connection of its own. Behind a transaction
// pooler it hears nothing, and waiters notice changes by polling.
func (db *DB) Listen(ctx context.Context, ready func(), heard func(topic string)) error {
	p, ok := db.engine.(*postgresDB)
	if !ok {
		return nil
	}
	conn, err := pgx.ConnectConfig(ctx, p.pool.Config().ConnConfig)
	if err != nil {
		return p.translate(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "LISTEN "+busChannel); err != nil {
		return p.translate(err)
	}
	ready()
	for {
		notice, err := conn.WaitForNotification(ctx)
		if err != nil {
			return p.translate(err)
		}
		for topic := range strings.SplitSeq(notice.Payload, "\n") {
			heard(topic)
		}
	}
}
