package webhook_test

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/previewd/previewd/internal/webhook"
)

// The vector that the libraries of Standard Webhooks are tested with.
const (
	vectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTime      = 1614265330
	vectorBody      = `{"test": 2432232314}`
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func TestSignatureOfThePublishedVector(t *testing.T) {
	t.Parallel()
	got, err := webhook.Sign([]string{vectorSecret}, vectorID, time.Unix(vectorTime, 0), []byte(vectorBody))
	require.NoError(t, err)
	require.Equal(t, vectorSignature, got)
}

// What we sign, the reference implementation verifies with either secret of a
// rotation.
func TestSignatureAgainstTheReference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		old, current := webhook.NewSecret(), webhook.NewSecret()
		id, body := rapid.StringMatching(`[a-zA-Z0-9_-]{1,64}`).Draw(t, "id"), rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		now := time.Now()
		signature, err := webhook.Sign([]string{current, old}, id, now, body)
		require.NoError(t, err)
		header := http.Header{}
		header.Set(webhook.HeaderID, id)
		header.Set(webhook.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
		header.Set(webhook.HeaderSignature, signature)
		for _, secret := range []string{old, current} {
			reference, err := standardwebhooks.NewWebhook(secret)
			require.NoError(t, err)
			require.NoError(t, reference.Verify(body, header))
		}
		reference, err := standardwebhooks.NewWebhook(webhook.NewSecret())
		require.NoError(t, err)
		require.Error(t, reference.Verify(body, header), "by a third secret")
	})
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	of := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	first, second := webhook.NewSecret(), webhook.NewSecret()
	require.NotEqual(t, first, second)
	for secret, good := range map[string]bool{
		webhook.NewSecret(): true, of(24): true, of(64): true, of(23): false, of(65): false, "": false, "whsec_": false,
		strings.TrimPrefix(of(32), "whsec_"): false, "whsec_not base64!": false,
	} {
		_, err := webhook.Sign([]string{secret}, "id", time.Now(), nil)
		require.Equal(t, good, err == nil, "%q", secret)
		if err != nil && len(secret) > 6 {
			require.NotContains(t, err.Error(), secret)
		}
	}
}
