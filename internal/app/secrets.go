package app

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/worker"
)

// secretsKey is the key that secrets are sealed with: the configured one, or the
// data folder's.
type secretsKey struct {
	cfg config.Config
	log *slog.Logger

	mu  sync.Mutex
	key []byte
}

// get implements worker.SecretsKey.
func (k *secretsKey) get(make bool) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key != nil {
		return k.key, nil
	}
	key, err := k.find(make)
	k.key = key
	return key, err
}

func (k *secretsKey) find(make bool) ([]byte, error) {
	if k.cfg.SecretsKey != "" {
		return config.ParseSecretsKey(k.cfg.SecretsKey)
	}
	path := k.cfg.SecretsKeyPath()
	raw, err := os.ReadFile(path)
	switch {
	case err == nil:
		key, err := config.ParseSecretsKey(string(raw))
		if err != nil {
			return nil, fmt.Errorf("the server's file secrets-key is no key: %w", err)
		}
		return key, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the server cannot read its file secrets-key: %w", errors.Unwrap(err))
	case !make:
		return nil, errors.New("the server has no key for secrets")
	case k.cfg.DatabaseURL != "":
		return nil, errors.New("the server makes no key for secrets by itself on PostgreSQL, for another one on the same database may make another")
	}
	key := newSecretsKey()
	if err := writeSecretsKey(path, key); err != nil {
		return nil, fmt.Errorf("the server cannot write its file secrets-key: %w", err)
	}
	k.log.Warn("made a key for secrets: keep a copy, for secrets cannot be read without it", "file", path)
	return key, nil
}

func newSecretsKey() []byte {
	key := make([]byte, worker.SecretsKeySize)
	rand.Read(key)
	return key
}

// writeSecretsKey returns once the key is safe on disk, under its whole name: a
// secret must not outlive its key.
func writeSecretsKey(path string, key []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".secrets-key-") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(hex.EncodeToString(key) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil { // never over another key
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
