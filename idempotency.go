package previewd

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/previewd/previewd/internal/fault"
)

// KeyDecision says what a request with an idempotency key gets.
type KeyDecision string

// The decisions on a key.
const (
	KeyExecute  KeyDecision = "execute"  // the key is free: do it, and store the answer with it
	KeyReplay   KeyDecision = "replay"   // answer what was answered
	KeyReused   KeyDecision = "reused"   // the key has answered another request: refuse
	KeyResource KeyDecision = "resource" // the stored answer was pruned: tell of the resource as it is now
)

// StoredKey is what the database knows of a key.
type StoredKey struct {
	Operation   string
	Fingerprint string
	Answered    bool // the answer is still kept
}

// DecideKey decides on a request by what is stored under its key; nil means
// that the key is free. A key is good for one operation with one content.
func DecideKey(stored *StoredKey, operation, fingerprint string) KeyDecision {
	switch {
	case stored == nil:
		return KeyExecute
	case (stored.Operation != operation || stored.Fingerprint != fingerprint) && !fault.Off(fault.Fingerprint):
		return KeyReused
	case !stored.Answered:
		return KeyResource
	}
	return KeyReplay
}

// ReusedKey refuses a request whose key has answered another.
func ReusedKey() *Error {
	return &Error{
		Code: CodeKeyReused, Message: "This Idempotency-Key has answered another request: use a new key for a new request.",
	}
}

// Fingerprint tells requests apart by the parts that make each what it is; each
// part is taken with its length before it.
func Fingerprint(parts ...string) string {
	h := sha256.New()
	for _, part := range append([]string{"v1"}, parts...) {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Replayed says that an answer was given before, and why it is given again.
type Replayed string

// Why an answer is given again.
const (
	ReplayedKey      Replayed = "true"     // the key has been answered
	ReplayedWindow   Replayed = "window"   // an equal request without a key came just before
	ReplayedResource Replayed = "resource" // the key has been answered; this is how its resource is now
)

// Operation is what became of an idempotency key.
type Operation struct {
	IdempotencyKey string    `json:"idempotencyKey"`
	Operation      string    `json:"operation" doc:"Method and route that the key was used for."`
	Status         int       `json:"status" doc:"HTTP status of the answer."`
	ProjectID      string    `json:"projectId,omitempty"`
	BuildID        string    `json:"buildId,omitempty"`
	RequestID      string    `json:"requestId,omitempty" doc:"The request that was answered first."`
	CreatedAt      time.Time `json:"createdAt"`
}
