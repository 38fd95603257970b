package httpx

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/previewd/previewd"
)

// KeyInput is the Idempotency-Key of a request that may have one.
type KeyInput struct {
	IdempotencyKey string `header:"Idempotency-Key" doc:"Makes the request safe to repeat: 16 to 128 of A-Z a-z 0-9 . _ : - as a structured-field string, or bare. Kept for 30 days, its answer for 7; what it created, for ever."`
	key            string
}

// Key returns the key without its quotes, "" for none.
func (k *KeyInput) Key() string { return k.key }

// Resolve implements huma.Resolver.
func (k *KeyInput) Resolve(ctx huma.Context) []error {
	r, _ := humago.Unwrap(ctx)
	key, err := ParseKey(r.Header.Values("Idempotency-Key"))
	if err != nil {
		return []error{NewProblem(ctx.Context(), err)}
	}
	k.key = key
	return nil
}

// RequiredKeyInput is the Idempotency-Key of a request that must have one.
type RequiredKeyInput struct{ KeyInput }

// Resolve implements huma.Resolver.
func (k *RequiredKeyInput) Resolve(ctx huma.Context) []error {
	if errs := k.KeyInput.Resolve(ctx); errs != nil || k.key != "" {
		return errs
	}
	ctx.AppendHeader("Link", `</docs#idempotency>; rel="describedby"`)
	return []error{NewProblem(ctx.Context(), &previewd.Error{
		Code: previewd.CodeKeyMissing, Message: "Send an Idempotency-Key header: a random one for each new request, the same one when you repeat it.",
	})}
}

var keyGrammar = regexp.MustCompile(`^[A-Za-z0-9._:-]{16,128}$`)

// ParseKey reads the Idempotency-Key lines of a request: none, or one that is a
// structured-field string (RFC 9651 §3.3.3) or the bare token that many clients
// send. It returns CodeKeyInvalid for anything else.
func ParseKey(lines []string) (string, error) {
	if len(lines) == 0 {
		return "", nil
	}
	key := lines[0]
	if unquoted, ok := strings.CutPrefix(key, `"`); ok {
		if unquoted, ok = strings.CutSuffix(unquoted, `"`); ok {
			key = unquoted
		}
	}
	if len(lines) > 1 || !keyGrammar.MatchString(key) {
		return "", &previewd.Error{
			Code: previewd.CodeKeyInvalid, Message: "Idempotency-Key must be given once, as 16 to 128 of A-Z a-z 0-9 . _ : -",
		}
	}
	return key, nil
}

// ReplayOutput says of an answer that it was given before.
type ReplayOutput struct {
	Replayed string `header:"Idempotent-Replayed" doc:"true: the key has been answered, this is its answer. window: an equal request without a key came less than ten seconds before. resource: the answer is no longer kept, this is how its resource is now."`
	Original string `header:"Idempotent-Original-Request-Id" doc:"X-Request-Id of the request that was answered first."`
}

// ReplayOf returns the headers of an answer that may have been given before.
func ReplayOf(r previewd.Replay) ReplayOutput {
	return ReplayOutput{Replayed: string(r.Replayed), Original: r.OriginalRequestID}
}

// CreatedStatus is 201 for an answer that is, or repeats, a creation's, and 200
// for one that tells of what is there.
func CreatedStatus(r previewd.Replay) int {
	if r.Replayed == previewd.ReplayedWindow || r.Replayed == previewd.ReplayedResource {
		return http.StatusOK
	}
	return http.StatusCreated
}

const maxWait = 60 * time.Second

// ParseWait reads how long a client is ready to wait: a duration such as 30s, or
// seconds; at most a minute. It returns CodeInvalid for anything else.
func ParseWait(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	if seconds, err := strconv.Atoi(text); err == nil {
		text = strconv.Itoa(seconds) + "s"
	}
	wait, err := time.ParseDuration(text)
	if err != nil || wait < 0 {
		return 0, &previewd.Error{Code: previewd.CodeInvalid, Message: "wait must be a duration such as 30s.", Details: "query.wait"}
	}
	return min(wait, maxWait), nil
}
