package store

import (
	"context"
	"strings"

	"github.com/previewd/previewd"
)

// EnvVar is a variable's whole row. Its Value is nil: Stored holds it.
type EnvVar struct {
	previewd.EnvVar
	Stored []byte // the value; of a secret it is sealed
	Size   int    // bytes of the value
}

// UpsertEnv stores a variable of a project that this transaction has locked, in
// place of one of its name. Its scopes are in the order of EnvScopes.
func (db *DB) UpsertEnv(ctx context.Context, projectID string, v *EnvVar) error {
	var scopes []string
	for _, scope := range v.Scopes {
		scopes = append(scopes, string(scope))
	}
	v.UpdatedAt = db.now
	_, err := db.exec(ctx, `
		INSERT INTO worker_env (project_id, name, secret, scopes, value, size, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (project_id, name) DO UPDATE SET secret = excluded.secret, scopes = excluded.scopes, value = excluded.value,
			size = excluded.size, updated_at = excluded.updated_at`,
		projectID, v.Name, number01(v.Secret), strings.Join(scopes, " "), v.Stored, v.Size, micros(db.now))
	return err
}

// ListEnv returns a project's variables by name.
func (db *DB) ListEnv(ctx context.Context, projectID string) ([]*EnvVar, error) {
	return all(ctx, db, scanEnv, `
		SELECT name, secret, scopes, value, size, updated_at FROM worker_env WHERE project_id = $1 ORDER BY name`, projectID)
}

func scanEnv(r rows) (*EnvVar, error) {
	v := new(EnvVar)
	var secret, updated int64
	var scopes string
	err := r.Scan(&v.Name, &secret, &scopes, &v.Stored, &v.Size, &updated)
	for scope := range strings.FieldsSeq(scopes) {
		v.Scopes = append(v.Scopes, previewd.EnvScope(scope))
	}
	v.Secret, v.UpdatedAt = secret == 1, timeOf(&updated)
	return v, err
}

// DeleteEnv removes a variable and reports whether there was one.
func (db *DB) DeleteEnv(ctx context.Context, projectID, name string) (bool, error) {
	n, err := db.exec(ctx, `DELETE FROM worker_env WHERE project_id = $1 AND name = $2`, projectID, name)
	return n == 1, err
}

// HasSecrets reports whether any project has a secret.
func (db *DB) HasSecrets(ctx context.Context) (bool, error) {
	var id string
	return db.one(ctx, []any{&id}, `SELECT project_id FROM worker_env WHERE secret = 1 LIMIT 1`)
}

// CheckSecrets looks for secrets that are not sealed as they begin with the head;
// nothing begins with none. Examples are at most so many.
func (db *DB) CheckSecrets(ctx context.Context, head []byte, examples int) (previewd.Check, error) {
	check := previewd.Check{Name: "secret_unreadable", Description: "Every secret was stored under the key that this server has."}
	if head == nil {
		head = []byte{}
	}
	where := ` FROM worker_env WHERE secret = 1 AND substr(value, 1, $1) <> $2`
	if _, err := db.one(ctx, []any{&check.Count}, `SELECT COUNT(*)`+where, max(len(head), 1), head); err != nil || check.Count == 0 {
		return check, err
	}
	list, err := all(ctx, db, func(r rows) (s string, err error) {
		var project, name string
		err = r.Scan(&project, &name)
		return "project " + project + " " + name, err
	}, `SELECT project_id, name`+where+` ORDER BY project_id, name LIMIT $3`, max(len(head), 1), head, examples)
	check.Examples = list
	return check, err
}
