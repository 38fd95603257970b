package worker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// reservedEnv are names that decide which programs run, where packages come from
// and where the network is: with them a variable could undo what the server says
// about a build. Tools read many of them in any case.
var reservedEnv = regexp.MustCompile(`(?i)^(PATH|HOME|TMPDIR|TMP|TEMP|PWD|OLDPWD|SHELL|USER|LOGNAME|LANG|CI|IFS|ENV|BASH_ENV|SHELLOPTS|` +
	`NO_UPDATE_NOTIFIER|(ASTRO|NEXT)_TELEMETRY_DISABLED|NODE_OPTIONS|NODE_PATH|NODE_REPL_EXTERNAL_MODULE|NODE_EXTRA_CA_CERTS|INIT_CWD|` +
	`(LD|DYLD|NPM_CONFIG|NPM_PACKAGE|NPM_LIFECYCLE|PNPM|YARN|BUN|COREPACK|PREVIEWD)_.*|(.*_)?PROXY)$`)

func checkEnvName(name string) error {
	switch {
	case !previewd.IsEnvName(name):
		return previewd.BadEnvName()
	case reservedEnv.MatchString(name):
		return invalid("This name is the server's own: builds are given it as the server wants, so choose another.", name)
	}
	return nil
}

// checkEnv completes a variable. Its errors never hold the value.
func checkEnv(req *previewd.SetEnvRequest) error {
	if err := checkEnvName(req.Name); err != nil {
		return err
	}
	value := string(req.Value)
	switch {
	case len(value) > previewd.MaxEnvValueBytes:
		return &previewd.Error{
			Code: previewd.CodeTooLarge, Message: fmt.Sprintf("value is longer than %d bytes.", previewd.MaxEnvValueBytes),
			Details: fmt.Sprintf("value: %d bytes", len(value)),
		}
	case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
		return invalid("value must be UTF-8 text without NUL.", "value")
	case req.Secret && len(strings.TrimSpace(value)) < previewd.MinSecretBytes:
		return invalid(fmt.Sprintf("A secret must have at least %d bytes besides white space: a shorter one cannot be told from what logs hold anyway.",
			previewd.MinSecretBytes), "value")
	}
	for _, scope := range req.Scopes {
		if !slices.Contains(previewd.EnvScopes(), scope) {
			return invalid("scopes may name install and build.", "scopes")
		}
	}
	given := req.Scopes
	req.Scopes = slices.DeleteFunc(previewd.EnvScopes(), func(scope previewd.EnvScope) bool { return !slices.Contains(given, scope) })
	if len(req.Scopes) == 0 {
		req.Scopes = []previewd.EnvScope{previewd.EnvBuild}
	}
	return nil
}

// ListEnv implements previewd.EnvKeeper.
func (s *Service) ListEnv(ctx context.Context, projectID string) ([]previewd.EnvVar, error) {
	if !previewd.IsID(projectID) {
		return nil, previewd.NotFound("project", projectID)
	}
	if _, err := s.Store.FindProject(ctx, projectID); err != nil {
		return nil, err
	}
	stored, err := s.Store.ListEnv(ctx, projectID)
	list := []previewd.EnvVar{}
	for _, v := range stored {
		list = append(list, shownEnv(v))
	}
	return list, err
}

// shownEnv is what anybody is told of a variable.
func shownEnv(v *store.EnvVar) previewd.EnvVar {
	shown := v.EnvVar
	if shown.Value = nil; !v.Secret {
		shown.Value = new(string(v.Stored))
	}
	return shown
}

// SetEnv implements previewd.EnvKeeper.
func (s *Service) SetEnv(ctx context.Context, req previewd.SetEnvRequest) (*previewd.EnvVar, error) {
	if !previewd.IsID(req.ProjectID) {
		return nil, previewd.NotFound("project", req.ProjectID)
	}
	if err := checkEnv(&req); err != nil {
		return nil, err
	}
	v := &store.EnvVar{
		EnvVar: previewd.EnvVar{Name: req.Name, Secret: req.Secret, Scopes: req.Scopes},
		Stored: []byte(req.Value), Size: len(req.Value),
	}
	err := s.Store.Tx(ctx, "env.set", func(tx *store.DB) error {
		if _, err := tx.LockProject(ctx, req.ProjectID); err != nil {
			return err
		}
		if err := checkEnvBeside(ctx, tx, req); err != nil {
			return err
		}
		if req.Secret {
			if err := s.sealEnv(ctx, tx, req, v); err != nil {
				return err
			}
		}
		if err := tx.UpsertEnv(ctx, req.ProjectID, v); err != nil {
			return err
		}
		return tx.AppendAudit(ctx, store.AuditEntry{
			Actor: "service/" + req.Caller.Service, Action: "env.set", Subject: "project/" + req.ProjectID,
			Data: map[string]any{"name": req.Name, "secret": req.Secret, "scopes": req.Scopes, "requestId": req.Caller.RequestID},
		})
	})
	if err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "variable set", telemetry.ProjectID, req.ProjectID, telemetry.RequestID, req.Caller.RequestID)
	return new(shownEnv(v)), nil
}

// checkEnvBeside refuses a variable with which a project would have too much, and one
// that would show by mistake what is a secret.
func checkEnvBeside(ctx context.Context, tx *store.DB, req previewd.SetEnvRequest) error {
	list, err := tx.ListEnv(ctx, req.ProjectID)
	if err != nil {
		return err
	}
	n, size := 1, len(req.Name)+len(req.Value)
	for _, v := range list {
		if v.Name == req.Name && v.Secret && !req.Secret {
			return &previewd.Error{
				Code:    previewd.CodeConflict,
				Message: "This variable is a secret: set it as one again, or remove it first (previewd env rm), for then everybody may read it.", Details: "secret",
			}
		}
		if v.Name != req.Name {
			n, size = n+1, size+len(v.Name)+v.Size
		}
	}
	if n > previewd.MaxEnvVars || size > previewd.MaxEnvBytes {
		return &previewd.Error{
			Code:    previewd.CodeTooLarge,
			Message: fmt.Sprintf("A project has at most %d variables, and %d bytes of names and values in all.", previewd.MaxEnvVars, previewd.MaxEnvBytes),
			Details: fmt.Sprintf("%d variables, %d bytes", n, size),
		}
	}
	return nil
}

// sealEnv seals a secret. A key is made only for the first one: if others are
// there, they have been stored under a key that this server does not have.
func (s *Service) sealEnv(ctx context.Context, tx *store.DB, req previewd.SetEnvRequest, v *store.EnvVar) error {
	others, err := tx.HasSecrets(ctx)
	if err != nil {
		return err
	}
	key, err := s.SecretsKey(!others)
	if err == nil {
		v.Stored, err = seal(key, req.ProjectID, req.Name, string(req.Value))
	}
	if err != nil {
		return &previewd.Error{
			Code: previewd.CodeUnavailable, Message: "This server has no key for secrets, so it stores none. " + keyHint, Err: err,
		}
	}
	return nil
}

// keyHint says what to do about a key that is not there, or not the right one.
const keyHint = "Give it PREVIEWD_SECRETS_KEY, the same on all servers of a database, or the file secrets-key of the data folder where its secrets were stored."

// DeleteEnv implements previewd.EnvKeeper.
func (s *Service) DeleteEnv(ctx context.Context, req previewd.DeleteEnvRequest) error {
	if !previewd.IsID(req.ProjectID) {
		return previewd.NotFound("project", req.ProjectID)
	}
	if !previewd.IsEnvName(req.Name) {
		return previewd.BadEnvName()
	}
	return s.Store.Tx(ctx, "env.delete", func(tx *store.DB) error {
		if _, err := tx.LockProject(ctx, req.ProjectID); err != nil {
			return err
		}
		deleted, err := tx.DeleteEnv(ctx, req.ProjectID, req.Name)
		if err != nil || !deleted {
			return err
		}
		return tx.AppendAudit(ctx, store.AuditEntry{
			Actor: "service/" + req.Caller.Service, Action: "env.delete", Subject: "project/" + req.ProjectID,
			Data: map[string]any{"name": req.Name, "requestId": req.Caller.RequestID},
		})
	})
}

// claimEnv returns a build's variables as its runner gets them. A build whose
// secrets cannot be read is refused: without them it might seem to succeed.
func (s *Service) claimEnv(projectID string, stored []*store.EnvVar) ([]previewd.ClaimVar, *previewd.Failure) {
	var list []previewd.ClaimVar
	var unreadable []string
	var reason error
	for _, v := range stored {
		value := string(v.Stored)
		if v.Secret {
			key, err := s.SecretsKey(false)
			if err == nil {
				value, err = unseal(key, projectID, v.Name, v.Stored)
			}
			if err != nil {
				unreadable, reason = append(unreadable, v.Name), err
			}
		}
		list = append(list, previewd.ClaimVar{Name: v.Name, Value: previewd.Hidden(value), Secret: v.Secret, Scopes: v.Scopes})
	}
	if len(unreadable) == 0 {
		return list, nil
	}
	s.Log.Error("secrets cannot be read", telemetry.ProjectID, projectID, telemetry.Error, reason)
	if n := len(unreadable); n > maxNamed {
		unreadable = append(unreadable[:maxNamed], fmt.Sprintf("%d more", n-maxNamed))
	}
	return nil, &previewd.Failure{
		Class: previewd.FailureInfra, Code: previewd.FailSecrets, Step: previewd.StepPrepare,
		Message: "The server cannot read the project's secrets (" + strings.Join(unreadable, ", ") + "): " + reason.Error() + ".",
		Hint:    "Whoever runs the server: " + keyHint + " If that key is lost, set the secrets again.",
	}
}

// checkSecrets looks whether secrets can be read with the key that is at hand. Who
// was not given a way to a key does not look.
func (s *Service) checkSecrets(ctx context.Context) ([]previewd.Check, error) {
	key, err := s.SecretsKey(false)
	var head []byte
	switch {
	case errors.Is(err, errNoSecretsKey):
		return nil, nil
	case err == nil:
		head = sealHead(key)
	}
	check, err := s.Store.CheckSecrets(ctx, head, maxExamples)
	return []previewd.Check{check}, err
}

// maxNamed is how many variables a failure names.
const maxNamed = 5
