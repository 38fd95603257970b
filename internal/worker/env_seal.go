package worker

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"
)

// SecretsKeySize is how long the key of secrets is.
const SecretsKeySize = 32

// SecretsKey returns the key that secrets are sealed with. When there is none it
// makes one if it may, else it returns an error.
type SecretsKey func(make bool) ([]byte, error)

var errNoSecretsKey = errors.New("this server has no key for secrets")

// errOtherKey says that a secret was sealed with another key.
var errOtherKey = errors.New("they were stored under another key than this server has")

const (
	sealVersion = 1 // of the form
	keyMarkSize = 4 // bytes that tell one key from another and say nothing more of it
)

// seal encrypts a value so that it can be read only where it was stored: under
// the same name in the same project.
func seal(key []byte, projectID, name, value string) ([]byte, error) {
	aead, err := newSealer(key)
	if err != nil {
		return nil, err
	}
	return append(sealHead(key), aead.Seal(nil, nil, []byte(value), sealContext(projectID, name))...), nil
}

// unseal returns the value of what seal has returned, or errOtherKey.
func unseal(key []byte, projectID, name string, sealed []byte) (string, error) {
	aead, err := newSealer(key)
	if err != nil {
		return "", err
	}
	head := sealHead(key)
	switch {
	case len(sealed) < len(head) || sealed[0] != sealVersion:
		return "", errors.New("they are stored in a form that this version does not know")
	case !bytes.Equal(sealed[:len(head)], head):
		return "", errOtherKey
	}
	value, err := aead.Open(nil, nil, sealed[len(head):], sealContext(projectID, name))
	if err != nil {
		return "", errors.New("what is stored was changed")
	}
	return string(value), nil
}

func newSealer(key []byte) (cipher.AEAD, error) {
	if len(key) != SecretsKeySize {
		return nil, fmt.Errorf("cannot use a key of %d bytes for secrets: it must have %d", len(key), SecretsKeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func sealContext(projectID, name string) []byte {
	return []byte("previewd env\x00" + projectID + "\x00" + name)
}

// sealHead is how every value begins that was sealed with a key.
func sealHead(key []byte) []byte {
	sum := sha256.Sum256(append([]byte("previewd secrets key\x00"), key...))
	return append([]byte{sealVersion}, sum[:keyMarkSize]...)
}
