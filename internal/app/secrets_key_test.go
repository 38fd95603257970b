package app

import (
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/config"
)

func keyOf(cfg config.Config) *secretsKey {
	return &secretsKey{cfg: cfg, log: slog.New(slog.DiscardHandler)}
}

func TestSecretsKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	cfg := config.Config{Data: t.TempDir()}
	_, err := keyOf(cfg).get(false)
	require.ErrorContains(t, err, "no key")
	require.NoFileExists(t, cfg.SecretsKeyPath())
	k := keyOf(cfg)
	key, err := k.get(true)
	require.NoError(t, err)
	require.Len(t, key, 32)
	for _, again := range []*secretsKey{k, keyOf(cfg)} {
		for _, make := range []bool{false, true} {
			same, err := again.get(make)
			require.NoError(t, err)
			require.Equal(t, key, same)
		}
	}
	entries, err := os.ReadDir(cfg.Data)
	require.NoError(t, err)
	require.Len(t, entries, 1, "and nothing is left beside it")
}

// Servers that share a database would make two, so they make none.
func TestSecretsKeyOfPostgresIsGiven(t *testing.T) {
	t.Parallel()
	cfg := config.Config{Data: t.TempDir(), DatabaseURL: "postgres://localhost/previewd"}
	_, err := keyOf(cfg).get(true)
	require.ErrorContains(t, err, "PostgreSQL")
	require.NoFileExists(t, cfg.SecretsKeyPath())
	require.NoError(t, os.WriteFile(cfg.SecretsKeyPath(), []byte(strings.Repeat("0a", 32)+"\n"), 0o600))
	key, err := keyOf(cfg).get(true)
	require.NoError(t, err)
	require.Len(t, key, 32)
}

// A file that is no key is not replaced, nor told.
func TestSecretsKeyThatIsNone(t *testing.T) {
	t.Parallel()
	cfg := config.Config{Data: t.TempDir()}
	require.NoError(t, os.WriteFile(cfg.SecretsKeyPath(), []byte("gibberish\n"), 0o600))
	_, err := keyOf(cfg).get(true)
	require.ErrorContains(t, err, "openssl rand -hex 32")
	require.NotContains(t, err.Error(), "gibberish")
}

func TestSecretsKeyOfTheConfiguration(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		strings.Repeat("0a", 32): true, "CgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgo=": true, "CgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgo": true,
		strings.Repeat("0a", 31): false, "CgoKCgo=": false, "pass phrase": false,
	} {
		cfg := config.Config{Data: t.TempDir(), SecretsKey: text}
		key, err := keyOf(cfg).get(true)
		require.Equal(t, ok, err == nil, text)
		require.NoFileExists(t, cfg.SecretsKeyPath())
		if ok {
			require.Equal(t, strings.Repeat("\n", 32), string(key))
		}
	}
}
