package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// appendAudits lets writers append to the chain at the same time.
func appendAudits(t *testing.T, db *store.DB, writers, each int) {
	t.Helper()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for i := range each {
				err := db.Tx(context.Background(), "test", func(tx *store.DB) error {
					return tx.AppendAudit(context.Background(), store.AuditEntry{Actor: "a", Action: "x", Subject: "s", Data: map[string]any{"n": i}})
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// Nobody builds on a predecessor that another has built on, however many write.
func TestAuditChainDoesNotFork(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		appendAudits(t, db, 16, 200)
		broken, err := db.FindAuditBreak(t.Context(), store.WorkerChain)
		require.NoError(t, err)
		require.Nil(t, broken)
		entries, _, err := db.FindAuditHead(t.Context(), store.WorkerChain)
		require.NoError(t, err)
		require.Equal(t, int64(16*200), entries)
	})
}

const auditEntries = 1100 // more than a page of the verifier

// forge is what somebody does who knows how hashes are made.
func forge(seq int64) string {
	entry := store.AuditEntry{Actor: "mallory", Action: "x", Subject: "s"}
	return fmt.Sprintf(`UPDATE worker_audit SET actor = 'mallory', data = '{}', at = 1, prev = 'p', hash = '%s' WHERE seq = %d`,
		store.AuditHash("p", seq, time.UnixMicro(1), entry, []byte("{}")), seq)
}

func TestTamperingIsNamed(t *testing.T) {
	t.Parallel()
	tampers := map[string]struct {
		script string
		want   store.AuditBreak
	}{
		"Alter":        {`UPDATE worker_audit SET actor = 'mallory' WHERE seq = 1050`, store.AuditBreak{Seq: 1050, Reason: store.AuditAltered}},
		"AlterTime":    {`UPDATE worker_audit SET at = at + 1 WHERE seq = 1`, store.AuditBreak{Seq: 1, Reason: store.AuditAltered}},
		"Delete":       {`DELETE FROM worker_audit WHERE seq = 1001`, store.AuditBreak{Seq: 1001, Reason: store.AuditMissing}},
		"DeleteFirst":  {`DELETE FROM worker_audit WHERE seq = 1`, store.AuditBreak{Seq: 1, Reason: store.AuditMissing}},
		"Swap":         {"UPDATE worker_audit SET seq = 0 WHERE seq = 7\nUPDATE worker_audit SET seq = 7 WHERE seq = 9\nUPDATE worker_audit SET seq = 9 WHERE seq = 0", store.AuditBreak{Seq: 7, Reason: store.AuditUnrelated}},
		"TruncateTail": {`DELETE FROM worker_audit WHERE seq > 1090`, store.AuditBreak{Seq: 1091, Reason: store.AuditMissing}},
		"TruncateAll":  {`DELETE FROM worker_audit`, store.AuditBreak{Seq: 1, Reason: store.AuditMissing}},
		"CutWithHead":  {"DELETE FROM worker_audit WHERE seq > 1090\nUPDATE worker_audit_head SET seq = 1090", store.AuditBreak{Seq: 1090, Reason: store.AuditNotHead}},
		"Forge":        {forge(500), store.AuditBreak{Seq: 500, Reason: store.AuditUnrelated}},
		"ForgeBeyond":  {`INSERT INTO worker_audit SELECT chain, seq + 1, hash, 'h', at, actor, action, subject, data FROM worker_audit WHERE seq = 1100`, store.AuditBreak{Seq: 1101, Reason: store.AuditBeyond}},
		"HeadHash":     {`UPDATE worker_audit_head SET hash = 'h'`, store.AuditBreak{Seq: 1100, Reason: store.AuditNotHead}},
		"NoHead":       {`DELETE FROM worker_audit_head`, store.AuditBreak{Reason: store.AuditNoHead}},
	}
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) {
		db, err := store.Open(t.Context(), cfg)
		require.NoError(t, err)
		defer db.Close()
		appendAudits(t, db, 4, auditEntries/4)
		shell := testkit.OpenShell(t, cfg)
		shell.Do("CREATE TABLE good AS SELECT * FROM worker_audit\nCREATE TABLE good_head AS SELECT * FROM worker_audit_head")
		for name, tamper := range tampers {
			shell.Do(tamper.script)
			broken, err := db.FindAuditBreak(t.Context(), store.WorkerChain)
			require.NoError(t, err, name)
			require.NotNil(t, broken, name)
			require.Equal(t, tamper.want, *broken, name)
			require.NotEmpty(t, broken.String())
			shell.Do(`
				DELETE FROM worker_audit
				DELETE FROM worker_audit_head
				INSERT INTO worker_audit SELECT * FROM good
				INSERT INTO worker_audit_head SELECT * FROM good_head`)
		}
		broken, err := db.FindAuditBreak(t.Context(), store.WorkerChain)
		require.NoError(t, err)
		require.Nil(t, broken)
	})
}

// The database itself refuses what the program never does.
func TestAuditIsAppendOnly(t *testing.T) {
	t.Parallel()
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) {
		db := testkit.Open(t, cfg)
		appendAudits(t, db, 1, 1)
		for _, statement := range []string{`UPDATE worker_audit SET actor = 'mallory'`, `DELETE FROM worker_audit`} {
			err := db.Tx(t.Context(), "test", func(tx *store.DB) error { return store.Exec(t.Context(), tx, statement) })
			require.ErrorContains(t, err, "append-only")
		}
	})
}
