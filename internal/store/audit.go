package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/previewd/previewd/internal/fault"
)

// AuditEntry is one mutating action, for the hash-chained audit log.
type AuditEntry struct {
	Actor   string // "service/<name>", "runner/<id>" or "system"
	Action  string
	Subject string // "project/<id>" or "build/<id>"
	Data    map[string]any
}

const auditChain = "worker"

// AppendAudit adds an entry to the chain, under the lock of its head row. It
// comes last in a transaction: what holds the head lets nobody else commit.
func (db *DB) AppendAudit(ctx context.Context, entry AuditEntry) error {
	if !db.inTx {
		return errors.New("cannot write outside a transaction")
	}
	data, err := json.Marshal(entry.Data)
	if err != nil {
		return err
	}
	return db.engine.appendAudit(ctx, db, entry, string(data))
}

// appendAuditInSteps is what an engine does that cannot hash.
func (db *DB) appendAuditInSteps(ctx context.Context, entry AuditEntry, data string) error {
	var seq int64
	var prev string
	// The UPDATE locks the head before it is read: nobody else can build on
	// the same predecessor.
	next := `UPDATE worker_audit_head SET seq = seq + 1 WHERE chain = $1 RETURNING seq, hash`
	if fault.Off(fault.AuditHead) {
		next = `SELECT seq + 1, hash FROM worker_audit_head WHERE chain = $1`
	}
	found, err := db.one(ctx, []any{&seq, &prev}, next, auditChain)
	if err != nil {
		return err
	}
	if !found {
		return errors.New("cannot find the head of the audit chain")
	}
	hash := auditHash(prev, seq, db.now, entry, []byte(data))
	if _, err := db.exec(ctx, `UPDATE worker_audit_head SET hash = $2, seq = $3 WHERE chain = $1`, auditChain, hash, seq); err != nil {
		return err
	}
	_, err = db.exec(ctx, `
		INSERT INTO worker_audit (chain, seq, prev, hash, at, actor, action, subject, data)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		auditChain, seq, prev, hash, micros(db.now), entry.Actor, entry.Action, entry.Subject, data)
	return err
}

// auditHash covers every field, each with its length before it, so that no two
// entries hash alike. Time is an integer: a formatted one does not survive a
// change of precision.
func auditHash(prev string, seq int64, at time.Time, entry AuditEntry, data []byte) string {
	h := sha256.New()
	var number [8]byte
	write := func(field string) {
		binary.BigEndian.PutUint64(number[:], uint64(len(field)))
		h.Write(number[:])
		h.Write([]byte(field))
	}
	write(prev)
	for _, n := range []int64{seq, at.UnixMicro()} {
		binary.BigEndian.PutUint64(number[:], uint64(n))
		h.Write(number[:])
	}
	for _, field := range []string{entry.Actor, entry.Action, entry.Subject, string(data)} {
		write(field)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// FindAuditBreak recomputes the chain and returns the sequence number of the
// first entry that does not follow from its predecessor, or 0.
func (db *DB) FindAuditBreak(ctx context.Context) (int64, error) {
	type link struct {
		seq, at    int64
		prev, hash string
		entry      AuditEntry
		data       string
	}
	prev, next := "", int64(1)
	for {
		page, err := all(ctx, db, func(r rows) (l link, err error) {
			err = r.Scan(&l.seq, &l.prev, &l.hash, &l.at, &l.entry.Actor, &l.entry.Action, &l.entry.Subject, &l.data)
			return l, err
		}, `SELECT seq, prev, hash, at, actor, action, subject, data FROM worker_audit
			WHERE chain = $1 AND seq >= $2 ORDER BY seq LIMIT 1000`, auditChain, next)
		if err != nil {
			return 0, err
		}
		for _, l := range page {
			if l.seq != next || l.prev != prev ||
				l.hash != auditHash(l.prev, l.seq, time.UnixMicro(l.at), l.entry, []byte(l.data)) {
				return next, nil
			}
			prev, next = l.hash, next+1
		}
		if len(page) < 1000 {
			return 0, nil
		}
	}
}
