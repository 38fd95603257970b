package workerapi

import (
	"context"
	"net/http"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

// KeyInput is the Idempotency-Key of a request that may have one. It is
// exported because huma reads only exported embedded fields.
type KeyInput struct {
	IdempotencyKey string `header:"Idempotency-Key" doc:"Makes the request safe to repeat: 16 to 128 of A-Z a-z 0-9 . _ : - as a structured-field string, or bare. Kept for 30 days, its answer for 7; what it created, for ever."`
	key            string
}

// Resolve implements huma.Resolver.
func (k *KeyInput) Resolve(ctx huma.Context) []error {
	r, _ := humago.Unwrap(ctx)
	key, err := parseKey(r.Header.Values("Idempotency-Key"))
	if err != nil {
		return []error{httpx.NewProblem(ctx.Context(), err)}
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
	return []error{httpx.NewProblem(ctx.Context(), &previewd.Error{
		Code: previewd.CodeKeyMissing, Message: "Send an Idempotency-Key header: a random one for each new request, the same one when you repeat it.",
	})}
}

var keyGrammar = regexp.MustCompile(`^[A-Za-z0-9._:-]{16,128}$`)

// parseKey reads the Idempotency-Key lines of a request: none, or one that is a
// structured-field string (RFC 9651 §3.3.3) or the bare token that many clients
// send.
func parseKey(lines []string) (string, error) {
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

func replayOf(r previewd.Replay) ReplayOutput {
	return ReplayOutput{Replayed: string(r.Replayed), Original: r.OriginalRequestID}
}

type findOperationInput struct {
	IdempotencyKey string `query:"idempotencyKey" required:"true" doc:"The key to ask for."`
}

type operationOutput struct {
	Body *previewd.Operation
}

func (s *Server) findOperation(ctx context.Context, in *findOperationInput) (*operationOutput, error) {
	key, err := parseKey([]string{in.IdempotencyKey})
	if err != nil {
		return nil, err
	}
	op, err := s.Worker.FindOperation(ctx, httpx.CallerOf(ctx), key)
	if err != nil {
		return nil, err
	}
	return &operationOutput{Body: op}, nil
}

type cancelBuildInput struct {
	KeyInput
	BuildID string `path:"buildId"`
}

func (s *Server) cancelBuild(ctx context.Context, in *cancelBuildInput) (*buildOutput, error) {
	build, err := s.Worker.CancelBuild(ctx, previewd.CancelBuildRequest{BuildID: in.BuildID, Caller: httpx.CallerOf(ctx)})
	if err != nil {
		return nil, err
	}
	return &buildOutput{Status: http.StatusOK, Body: build}, nil
}
