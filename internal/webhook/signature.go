package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of a webhook.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

const (
	secretPrefix   = "whsec_"
	secretBytes    = 32 // of a new one
	minSecretBytes = 24
	maxSecretBytes = 64
	version        = "v1,"

	// Tolerance is how far a webhook's timestamp may be from the receiver's clock.
	Tolerance = 5 * time.Minute
)

// NewSecret returns a new secret.
func NewSecret() string {
	var key [secretBytes]byte
	rand.Read(key[:]) // never fails: crypto/rand ends the program instead
	return secretPrefix + base64.StdEncoding.EncodeToString(key[:])
}

// errSecret does not name the secret.
var errSecret = errors.New("a webhook secret must be whsec_ and 24 to 64 bytes in base64")

func secretKey(secret string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(secret, secretPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) < minSecretBytes || len(key) > maxSecretBytes {
		return nil, errSecret
	}
	return key, nil
}

// Sign returns the value of webhook-signature: a signature by each secret, so that
// receivers can go from one to the next when they like.
func Sign(secrets []string, id string, at time.Time, body []byte) (string, error) {
	var signatures []string
	for _, secret := range secrets {
		key, err := secretKey(secret)
		if err != nil {
			return "", err
		}
		signatures = append(signatures, sign(key, id, at, body))
	}
	return strings.Join(signatures, " "), nil
}

func sign(key []byte, id string, at time.Time, body []byte) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
	h.Write(body)
	return version + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// What Verify returns.
var (
	ErrHeaders   = errors.New("the webhook's headers are missing or malformed")
	ErrTimestamp = errors.New("the webhook's timestamp is too far from now")
	ErrSignature = errors.New("no signature of the webhook is right")
)

// Verify returns nil when one of the signatures is by one of the secrets and the
// timestamp is within the tolerance of now.
func Verify(secrets []string, header http.Header, now time.Time, body []byte) error {
	id, signatures := header.Get(HeaderID), header.Get(HeaderSignature)
	stamp := header.Get(HeaderTimestamp)
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	// One spelling of a number: what is signed is the number.
	if id == "" || signatures == "" || err != nil || strconv.FormatInt(seconds, 10) != stamp {
		return ErrHeaders
	}
	at := time.Unix(seconds, 0)
	if apart := now.Sub(at); apart > Tolerance || apart < -Tolerance {
		return ErrTimestamp
	}
	for _, secret := range secrets {
		key, err := secretKey(secret)
		if err != nil {
			return err
		}
		right := []byte(sign(key, id, at, body))
		for _, signature := range strings.Fields(signatures) {
			if hmac.Equal([]byte(signature), right) {
				return nil
			}
		}
	}
	return ErrSignature
}
