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

func headers(id string, at int64, signature string) http.Header {
	h := http.Header{}
	h.Set(webhook.HeaderID, id)
	h.Set(webhook.HeaderTimestamp, strconv.FormatInt(at, 10))
	h.Set(webhook.HeaderSignature, signature)
	return h
}

func TestSignatureOfThePublishedVector(t *testing.T) {
	t.Parallel()
	got, err := webhook.Sign([]string{vectorSecret}, vectorID, time.Unix(vectorTime, 0), []byte(vectorBody))
	require.NoError(t, err)
	require.Equal(t, vectorSignature, got)
}

func TestVerify(t *testing.T) {
	t.Parallel()
	wrong := "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
	ok := func() http.Header { return headers(vectorID, vectorTime, vectorSignature) }
	with := func(name, value string) http.Header {
		h := ok()
		h.Set(name, value)
		return h
	}
	for name, test := range map[string]struct {
		header http.Header
		now    int64
		body   string
		want   error
	}{
		"Right":               {ok(), vectorTime, vectorBody, nil},
		"OneOfSeveral":        {with("webhook-signature", wrong+" v2,abc "+vectorSignature), vectorTime, vectorBody, nil},
		"AlmostTooOld":        {ok(), vectorTime + 300, vectorBody, nil},
		"AlmostTooNew":        {ok(), vectorTime - 300, vectorBody, nil},
		"TooOld":              {ok(), vectorTime + 301, vectorBody, webhook.ErrTimestamp},
		"TooNew":              {ok(), vectorTime - 301, vectorBody, webhook.ErrTimestamp},
		"OtherBody":           {ok(), vectorTime, vectorBody + " ", webhook.ErrSignature},
		"EmptyBody":           {ok(), vectorTime, "", webhook.ErrSignature},
		"OtherID":             {with("webhook-id", "msg_other"), vectorTime, vectorBody, webhook.ErrSignature},
		"OtherTime":           {with("webhook-timestamp", strconv.Itoa(vectorTime+1)), vectorTime, vectorBody, webhook.ErrSignature},
		"WrongSignature":      {with("webhook-signature", wrong), vectorTime, vectorBody, webhook.ErrSignature},
		"NoVersion":           {with("webhook-signature", strings.TrimPrefix(vectorSignature, "v1,")), vectorTime, vectorBody, webhook.ErrSignature},
		"OtherVersion":        {with("webhook-signature", "v2"+strings.TrimPrefix(vectorSignature, "v1")), vectorTime, vectorBody, webhook.ErrSignature},
		"HalfASignature":      {with("webhook-signature", vectorSignature[:20]), vectorTime, vectorBody, webhook.ErrSignature},
		"OnlyAVersion":        {with("webhook-signature", "v1,"), vectorTime, vectorBody, webhook.ErrSignature},
		"NoID":                {with("webhook-id", ""), vectorTime, vectorBody, webhook.ErrHeaders},
		"NoSignature":         {with("webhook-signature", ""), vectorTime, vectorBody, webhook.ErrHeaders},
		"NoTime":              {with("webhook-timestamp", ""), vectorTime, vectorBody, webhook.ErrHeaders},
		"TimeIsNoNumber":      {with("webhook-timestamp", "soon"), vectorTime, vectorBody, webhook.ErrHeaders},
		"TimeInOtherSpelling": {with("webhook-timestamp", "+"+strconv.Itoa(vectorTime)), vectorTime, vectorBody, webhook.ErrHeaders},
	} {
		err := webhook.Verify([]string{vectorSecret}, test.header, time.Unix(test.now, 0), []byte(test.body))
		require.ErrorIs(t, err, test.want, name)
	}
}

// What we sign, the reference implementation verifies, with either secret of a
// rotation; and what it signs, we do.
func TestSignatureAgainstTheReference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		old, current := webhook.NewSecret(), webhook.NewSecret()
		id, body := rapid.StringMatching(`[a-zA-Z0-9_-]{1,64}`).Draw(t, "id"), rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		now := time.Now()
		signature, err := webhook.Sign([]string{current, old}, id, now, body)
		require.NoError(t, err)
		header := headers(id, now.Unix(), signature)
		for _, secret := range []string{old, current} {
			reference, err := standardwebhooks.NewWebhook(secret)
			require.NoError(t, err)
			require.NoError(t, reference.Verify(body, header))
			require.NoError(t, webhook.Verify([]string{secret}, header, now, body))
			theirs, err := reference.Sign(id, now, body)
			require.NoError(t, err)
			require.NoError(t, webhook.Verify([]string{current, old}, headers(id, now.Unix(), theirs), now, body))
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
