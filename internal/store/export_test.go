package store

import "context"

// AuditHash is what whoever forges the chain would compute.
var AuditHash = auditHash

// Exec runs a statement in a transaction.
func Exec(ctx context.Context, tx *DB, statement string) error {
	_, err := tx.exec(ctx, statement)
	return err
}
