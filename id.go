package previewd

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"sync"
	"time"
)

var lastID struct {
	sync.Mutex
	stamp uint64
}

// NewID returns a new UUIDv7 (RFC 9562 §5.7) in its canonical lower-case text
// form, 36 bytes long. Within one process later ids sort after earlier ones:
// the 12 bits of rand_a hold the sub-millisecond part of the clock (RFC 9562
// §6.2, method 3). An id is a name and never a secret.
func NewID() string {
	now := time.Now().UnixNano()
	ms, frac := uint64(now/1e6), uint64(now%1e6)*4096/1e6
	stamp := ms<<12 | frac
	lastID.Lock()
	if stamp <= lastID.stamp {
		stamp = lastID.stamp + 1
	}
	lastID.stamp = stamp
	lastID.Unlock()

	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], stamp>>12<<16|0x7000|stamp&0xfff)
	rand.Read(id[8:]) // never fails: crypto/rand ends the program instead
	id[8] = id[8]&0x3f | 0x80

	var text [36]byte
	hex.Encode(text[:8], id[:4])
	hex.Encode(text[9:13], id[4:6])
	hex.Encode(text[14:18], id[6:8])
	hex.Encode(text[19:23], id[8:10])
	hex.Encode(text[24:], id[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}

// NewRowID returns a new id of the same form for a row that is neither a project
// nor a build: ids of those are made by the worker alone.
func NewRowID() string { return NewID() }

// IsID reports whether s is a UUID in canonical lower-case text form.
func IsID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if !strings.ContainsRune("0123456789abcdef", rune(c)) {
				return false
			}
		}
	}
	return true
}

var referenceAlphabet = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// NewReferenceID returns a new "ref_…" id with 80 random bits. It names one
// failure, to the person who met it and in the log.
func NewReferenceID() string { return "ref_" + randomText() }

// NewRequestID returns a new "req_…" id with 80 random bits.
func NewRequestID() string { return "req_" + randomText() }

// NewTokenID returns a new "tok_…" id with 80 random bits. It names a service
// token and is no secret.
func NewTokenID() string { return "tok_" + randomText() }

func randomText() string {
	var b [10]byte
	rand.Read(b[:])
	return referenceAlphabet.EncodeToString(b[:])
}
