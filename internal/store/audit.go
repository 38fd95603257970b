package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/previewd/previewd/internal/fault"
)

// AuditEntry is one mutating action, for the hash-chained audit log.
type AuditEntry struct {
	Actor   string // "service/<name>", "runner/<id>" or "system"
	Action  string
	Subject string // "project/<id>" or "build/<id>"
	Data    map[string]any

	chain Chain
}

// Chain is one of the audit logs. The worker's and the gateway's databases may
// be two.
type Chain string

// The chains.
const (
	WorkerChain  Chain = "worker"
	GatewayChain Chain = "gateway"
)

// Chains lists both.
func Chains() []Chain { return []Chain{WorkerChain, GatewayChain} }

func (c Chain) head() string { return string(c) + "_audit_head" }
func (c Chain) log() string  { return string(c) + "_audit" }

// AppendAudit adds an entry to the worker's chain, under the lock of its head
// row. It comes last in a transaction: what holds the head lets nobody else commit.
func (db *DB) AppendAudit(ctx context.Context, entry AuditEntry) error {
	return db.appendAudit(ctx, WorkerChain, entry)
}

// AppendGatewayAudit is AppendAudit for the gateway's chain.
func (db *DB) AppendGatewayAudit(ctx context.Context, entry AuditEntry) error {
	return db.appendAudit(ctx, GatewayChain, entry)
}

func (db *DB) appendAudit(ctx context.Context, chain Chain, entry AuditEntry) error {
	entry.chain = chain
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
	next := `UPDATE ` + entry.chain.head() + ` SET seq = seq + 1 WHERE chain = $1 RETURNING seq, hash`
	if fault.Off(fault.AuditHead) {
		next = `SELECT seq + 1, hash FROM ` + entry.chain.head() + ` WHERE chain = $1`
	}
	found, err := db.one(ctx, []any{&seq, &prev}, next, string(entry.chain))
	if err != nil {
		return err
	}
	if !found {
		return errors.New("cannot find the head of the audit chain")
	}
	hash := auditHash(prev, seq, db.now, entry, []byte(data))
	if _, err := db.exec(ctx, `UPDATE `+entry.chain.head()+` SET hash = $2, seq = $3 WHERE chain = $1`, string(entry.chain), hash, seq); err != nil {
		return err
	}
	_, err = db.exec(ctx, `
		INSERT INTO `+entry.chain.log()+` (chain, seq, prev, hash, at, actor, action, subject, data)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		string(entry.chain), seq, prev, hash, micros(db.now), entry.Actor, entry.Action, entry.Subject, data)
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

// AuditBreak is the first entry at which the chain cannot be followed.
type AuditBreak struct {
	Seq    int64       `json:"seq"`
	Reason BreakReason `json:"reason"`
}

// BreakReason says what is wrong with an entry.
type BreakReason string

// The reasons.
const (
	AuditMissing   BreakReason = "missing"   // removed, or cut off with all that followed
	AuditAltered   BreakReason = "altered"   // its content does not have its hash
	AuditUnrelated BreakReason = "unrelated" // it names another predecessor than the entry before it
	AuditBeyond    BreakReason = "beyond"    // it stands after the head
	AuditNotHead   BreakReason = "not_head"  // it is the last, and the head has another hash
	AuditNoHead    BreakReason = "no_head"   // the chain has no head
)

// String says it in words.
func (b *AuditBreak) String() string {
	switch b.Reason {
	case AuditMissing:
		return fmt.Sprintf("entry %d is missing", b.Seq)
	case AuditAltered:
		return fmt.Sprintf("entry %d has been altered", b.Seq)
	case AuditUnrelated:
		return fmt.Sprintf("entry %d does not follow entry %d", b.Seq, b.Seq-1)
	case AuditBeyond:
		return fmt.Sprintf("entry %d stands after the head of the chain", b.Seq)
	case AuditNotHead:
		return fmt.Sprintf("entry %d is the last, and not the one that the head of the chain names", b.Seq)
	case AuditNoHead:
		return "the chain has no head"
	}
	return fmt.Sprintf("entry %d: %s", b.Seq, b.Reason)
}

type auditLink struct {
	seq, at    int64
	prev, hash string
	entry      AuditEntry
	data       string
}

// follows tells what keeps the link from being entry seq after one with the
// hash prev, or "".
func (l auditLink) follows(prev string, seq int64) BreakReason {
	switch {
	case l.seq != seq:
		return AuditMissing
	case l.prev != prev:
		return AuditUnrelated
	case l.hash != auditHash(l.prev, l.seq, time.UnixMicro(l.at), l.entry, []byte(l.data)):
		return AuditAltered
	}
	return ""
}

// FindAuditHead returns how long the chain is and the hash of its last entry:
// what to keep elsewhere to compare with later.
func (db *DB) FindAuditHead(ctx context.Context, chain Chain) (seq int64, hash string, err error) {
	_, err = db.one(ctx, []any{&seq, &hash}, `SELECT seq, hash FROM `+chain.head()+` WHERE chain = $1`, string(chain))
	return seq, hash, err
}

const auditPage = 1000

// FindAuditBreak recomputes the chain up to its head and returns the first
// entry that is wrong, or nil. Entries that are added meanwhile are left to the
// next call. Who can write the whole database can make a new chain that holds:
// against that only a copy of the head that is kept elsewhere helps.
func (db *DB) FindAuditBreak(ctx context.Context, chain Chain) (*AuditBreak, error) {
	db = db.patient()
	var head, top int64
	var headHash string
	found, err := db.one(ctx, []any{&head, &headHash, &top}, `
		SELECT h.seq, h.hash, (SELECT COALESCE(MAX(a.seq), 0) FROM `+chain.log()+` a WHERE a.chain = h.chain)
		FROM `+chain.head()+` h WHERE h.chain = $1`, string(chain))
	if err != nil {
		return nil, err
	}
	if !found {
		return &AuditBreak{Seq: 0, Reason: AuditNoHead}, nil
	}
	prev, next := "", int64(1)
	for next <= head {
		page, err := all(ctx, db, func(r rows) (l auditLink, err error) {
			err = r.Scan(&l.seq, &l.prev, &l.hash, &l.at, &l.entry.Actor, &l.entry.Action, &l.entry.Subject, &l.data)
			return l, err
		}, `SELECT seq, prev, hash, at, actor, action, subject, data FROM `+chain.log()+`
			WHERE chain = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq LIMIT $4`, string(chain), next, head, auditPage)
		if err != nil {
			return nil, err
		}
		for _, l := range page {
			if reason := l.follows(prev, next); reason != "" {
				return &AuditBreak{next, reason}, nil
			}
			prev, next = l.hash, next+1
		}
		if len(page) < auditPage && next <= head {
			return &AuditBreak{next, AuditMissing}, nil
		}
	}
	switch {
	case prev != headHash:
		return &AuditBreak{head, AuditNotHead}, nil
	case top > head:
		return &AuditBreak{head + 1, AuditBeyond}, nil
	}
	return nil, nil
}
