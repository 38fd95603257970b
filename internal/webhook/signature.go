package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
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
