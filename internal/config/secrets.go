package config

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"path/filepath"
	"strings"
)

const secretsKeySize = 32

// ParseSecretsKey reads the key of secrets: 32 bytes, as 64 hexadecimal digits or
// in base64. Its error does not repeat it.
func ParseSecretsKey(text string) ([]byte, error) {
	text = strings.TrimSpace(text)
	if key, err := hex.DecodeString(text); err == nil && len(key) == secretsKeySize {
		return key, nil
	}
	plain := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	if key, err := base64.RawStdEncoding.DecodeString(plain); err == nil && len(key) == secretsKeySize {
		return key, nil
	}
	return nil, errors.New("the key of secrets must be 32 bytes, as 64 hexadecimal digits or in base64: make one with `openssl rand -hex 32`")
}

// SecretsKeyPath returns where a data folder's key of secrets is.
func (c *Config) SecretsKeyPath() string { return filepath.Join(c.Data, "secrets-key") }
