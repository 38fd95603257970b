package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/event"
	"github.com/previewd/previewd/internal/gateway"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/worker"
)

// Doctor looks after databases and artifacts without a server, or beside one that
// runs.
type Doctor struct {
	// NoFiles says why no artifacts are checked, or is "".
	NoFiles string

	worker  *worker.Service
	gateway *gateway.Service
	databases
}

// databases are the worker's and the gateway's, which are often one.
type databases struct{ own, users *store.DB }

// openDatabases opens what the configuration names; each says how.
func openDatabases(ctx context.Context, cfg config.Config, each store.Config) (d databases, err error) {
	own, users := each, each
	own.Path, own.URL, users.URL = cfg.DatabasePath(), cfg.DatabaseURL, cfg.GatewayDatabaseURL
	if d.own, err = store.Open(ctx, own); err != nil {
		return d, err
	}
	if d.users = d.own; users.URL == "" || users.URL == own.URL {
		return d, nil
	}
	if d.users, err = store.Open(ctx, users); err != nil {
		return d, errors.Join(err, d.own.Close())
	}
	return d, nil
}

// Close closes the databases.
func (d databases) Close() error {
	if d.users == d.own {
		return d.own.Close()
	}
	return errors.Join(d.own.Close(), d.users.Close())
}

// each returns every database once.
func (d databases) each() []*store.DB {
	if d.users == d.own {
		return []*store.DB{d.own}
	}
	return []*store.DB{d.own, d.users}
}

// OpenDoctor opens what the configuration names. It makes and migrates nothing.
func OpenDoctor(ctx context.Context, cfg config.Config) (*Doctor, error) {
	dbs, err := openDatabases(ctx, cfg, store.Config{Application: "previewd doctor", KeepSchema: true})
	if err != nil {
		return nil, err
	}
	d := &Doctor{databases: dbs}
	if _, err := os.Stat(cfg.ArtifactsPath()); err != nil && cfg.DatabaseURL != "" {
		d.NoFiles = "there is no folder " + cfg.ArtifactsPath() + " here: name it with --artifacts"
	}
	quiet := slog.New(slog.DiscardHandler)
	var key worker.SecretsKey // of a server elsewhere it is not known
	if cfg.SecretsKey != "" || cfg.DatabaseURL == "" {
		key = (&secretsKey{cfg: cfg, log: quiet}).get
	}
	d.worker, err = worker.New(worker.Config{
		Store: dbs.own, Artifacts: artifact.OpenFolder(cfg.ArtifactsPath()), Changes: new(event.Hub), Log: quiet, PreviewURL: cfg.PreviewURL,
		SecretsKey: key,
	})
	if err != nil {
		return nil, errors.Join(err, dbs.Close())
	}
	d.gateway = gateway.New(gateway.Config{Store: dbs.users, Changes: new(event.Hub), Log: quiet, Prices: cfg.Prices()})
	return d, nil
}

// Check looks whether every promise holds; all reads every file.
func (d *Doctor) Check(ctx context.Context, all bool) (*previewd.Integrity, error) {
	depth := worker.Sample
	switch {
	case d.NoFiles != "":
		depth = worker.Rows
	case all:
		depth = worker.Full
	}
	began := time.Now()
	found, err := d.worker.CheckAll(ctx, depth)
	if err != nil {
		return nil, err
	}
	checks := found.Checks
	if d.users != d.own {
		more, err := d.users.CheckIntegrity(ctx)
		if err != nil {
			return nil, err
		}
		checks = append(checks, more...)
	}
	agree, err := d.checkAgreement(ctx)
	return previewd.NewIntegrity(began, append(checks, agree...)), err
}

// checkAgreement compares what the gateway shows with the worker's rows, where
// both are at hand.
func (d databases) checkAgreement(ctx context.Context) ([]previewd.Check, error) {
	if d.users == d.own {
		if both, err := d.own.HasProjects(ctx); err != nil || !both {
			return nil, err
		}
	}
	check, err := d.users.CheckAgreement(ctx, d.own)
	if err != nil {
		return nil, err
	}
	return []previewd.Check{check}, nil
}

// Repairs is told of repairs, each in words.
type Repairs struct {
	Plan func(text string) // before each
	Done func(text string)
	Skip func(text string) // there was nothing to repair any more, or something else is in its way
}

// repair is one of the worker's or the gateway's.
type repair struct {
	text string
	do   func(ctx context.Context) (done bool, err error)
}

func (d *Doctor) listRepairs(ctx context.Context) ([]repair, error) {
	var list []repair
	theirs, err := d.worker.ListRepairs(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range theirs {
		list = append(list, repair{r.Text, func(ctx context.Context) (bool, error) { return d.worker.Repair(ctx, r) }})
	}
	users, err := d.gateway.ListRepairs(ctx)
	for _, r := range users {
		list = append(list, repair{r.Text, func(ctx context.Context) (bool, error) { return d.gateway.Repair(ctx, r) }})
	}
	return list, err
}

// Repair repairs what has one right repair, or with dryRun only tells of it.
func (d *Doctor) Repair(ctx context.Context, dryRun bool, tell Repairs) error {
	for {
		list, err := d.listRepairs(ctx)
		if err != nil {
			return err
		}
		again := false
		for _, r := range list {
			tell.Plan(r.text)
			if dryRun {
				continue
			}
			done, err := r.do(ctx)
			if err != nil {
				return err
			}
			if !done {
				tell.Skip(r.text)
				continue
			}
			tell.Done(r.text)
			again = true
		}
		if !again {
			return nil
		}
	}
}

// AuditChain is what VerifyAudit found of a chain.
type AuditChain struct {
	Chain   store.Chain `json:"chain"`
	OK      bool        `json:"ok"`
	Entries int64       `json:"entries"`
	Head    string      `json:"head"`
	Seq     int64       `json:"badSeq,omitempty"` // the first bad entry
	Reason  string      `json:"reason,omitempty"`
	Text    string      `json:"text,omitempty"`
}

// VerifyAudit recomputes the audit chains, each in its database.
func (d *Doctor) VerifyAudit(ctx context.Context) ([]AuditChain, error) {
	var list []AuditChain
	for _, chain := range store.Chains() {
		for _, db := range d.each() {
			found, err := verifyChain(ctx, db, chain)
			if err != nil {
				return nil, err
			}
			if found.Entries > 0 || !found.OK || db == d.home(chain) {
				list = append(list, found)
			}
		}
	}
	return list, nil
}

// home is the database that a chain belongs to.
func (d databases) home(chain store.Chain) *store.DB {
	if chain == store.GatewayChain {
		return d.users
	}
	return d.own
}

func verifyChain(ctx context.Context, db *store.DB, chain store.Chain) (AuditChain, error) {
	entries, head, err := db.FindAuditHead(ctx, chain)
	if err != nil {
		return AuditChain{}, err
	}
	broken, err := db.FindAuditBreak(ctx, chain)
	found := AuditChain{Chain: chain, OK: broken == nil, Entries: entries, Head: head}
	if broken != nil {
		found.Seq, found.Reason, found.Text = broken.Seq, string(broken.Reason), broken.String()
	}
	return found, err
}
