package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/app"
	"github.com/previewd/previewd/internal/config"
)

// local is what every command needs that works on a database itself.
type local struct {
	Data        string `help:"Data folder of a server." default:"./previewd-data" env:"PREVIEWD_DATA" type:"path"`
	DatabaseURL string `help:"PostgreSQL that the server uses. Default: SQLite in the data folder." env:"PREVIEWD_DATABASE_URL" placeholder:"URL"`
	JSON        bool   `help:"Print JSON for programs."`
}

func (l *local) config() config.Config {
	return config.Config{Data: l.Data, DatabaseURL: l.DatabaseURL}
}

// both is what a command needs beside local that looks at the gateway's tables,
// which may have a database of their own.
type both struct {
	local
	GatewayDatabaseURL string `help:"PostgreSQL of the gateway, if it is not the worker's." env:"PREVIEWD_GATEWAY_DATABASE_URL" placeholder:"URL"`
}

func (b *both) config() config.Config {
	cfg := b.local.config()
	cfg.GatewayDatabaseURL = b.GatewayDatabaseURL
	return cfg
}

// brokenError says that a promise does not hold. What and where has been printed.
type brokenError string

func (e brokenError) Error() string { return string(e) }

type doctorCmd struct {
	Check doctorCheckCmd `cmd:"" default:"withargs" help:"Check every promise about rows and files; repair what has one right repair."`
	Audit doctorAuditCmd `cmd:"" help:"Look after the audit log."`

	Sandbox doctorSandboxCmd `cmd:"" help:"Prove on this machine that builds are confined that run code, and say what to change if they are not."`
}

type doctorAuditCmd struct {
	Verify doctorVerifyCmd `cmd:"" help:"Recompute the chain of the audit log and name the first bad entry."`
}

type doctorCheckCmd struct {
	both
	Artifacts  string `help:"Folder for artifacts. Default: in the data folder." env:"PREVIEWD_ARTIFACTS" placeholder:"DIR" type:"path"`
	SecretsKey string `help:"The servers' key of secrets, to see whether it reads them all. Default for SQLite: the data folder's." env:"PREVIEWD_SECRETS_KEY" placeholder:"KEY"`
	All        bool   `help:"Read every file of every version. Default: a sample."`
	Fix        bool   `help:"Repair what has one right repair. Each is printed before and written to the audit log."`
	DryRun     bool   `help:"With --fix: print the repairs and do none."`

	PriceBuildSecond int64 `help:"With --fix: the server's price of a second of building, for billing sessions that were left open." env:"PREVIEWD_PRICE_BUILD_SECOND" placeholder:"MICROS"`
	PriceStoredGiB   int64 `name:"price-stored-gib" help:"With --fix: the server's price of a GiB of a version's files." env:"PREVIEWD_PRICE_STORED_GIB" placeholder:"MICROS"`
}

// doctorReport is the JSON form.
type doctorReport struct {
	*previewd.Integrity
	Repairs []string `json:"repairs,omitempty"` // done, or with --dry-run proposed
	Skipped []string `json:"skipped,omitempty"` // turned out not to be possible
	Note    string   `json:"note,omitempty"`
}

// Run implements the command.
func (c *doctorCheckCmd) Run(e *env) (err error) {
	if c.DryRun && !c.Fix {
		return usageError("--dry-run belongs to --fix")
	}
	cfg := c.config()
	cfg.Artifacts, cfg.SecretsKey = c.Artifacts, c.SecretsKey
	cfg.PriceBuildSecond, cfg.PriceStoredGiB = c.PriceBuildSecond, c.PriceStoredGiB
	doctor, err := app.OpenDoctor(e.ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		if failed := doctor.Close(); err == nil {
			err = failed
		}
	}()
	report := doctorReport{Note: doctor.NoFiles}
	if c.Fix {
		if err := c.repair(e, doctor, &report); err != nil {
			return err
		}
	}
	if report.Integrity, err = doctor.Check(e.ctx, c.All); err != nil {
		return err
	}
	if c.JSON {
		err = e.streams.printJSON(report)
	} else {
		err = printChecks(e.streams, report)
	}
	if broken := len(previewd.Broken(report.Checks)); err == nil && broken > 0 {
		return brokenError(fmt.Sprintf("%d of %d promises are broken", broken, len(report.Checks)))
	}
	return err
}

func (c *doctorCheckCmd) repair(e *env, doctor *app.Doctor, report *doctorReport) error {
	word := "repair: "
	if c.DryRun {
		word = "would repair: "
	}
	say := func(line string) {
		if !c.JSON {
			fmt.Fprintln(e.streams.Out, line)
		}
	}
	return doctor.Repair(e.ctx, c.DryRun, app.Repairs{
		Plan: func(text string) {
			say(word + text)
			if c.DryRun {
				report.Repairs = append(report.Repairs, text)
			}
		},
		Done: func(text string) { report.Repairs = append(report.Repairs, text) },
		Skip: func(text string) {
			say("not possible any more: " + text)
			report.Skipped = append(report.Skipped, text)
		},
	})
}

// printChecks prints a line per check, and below a broken one what breaks it and
// what to do.
func printChecks(streams Streams, report doctorReport) error {
	rows := [][]any{}
	for _, check := range report.Checks {
		state := "OK"
		if check.Count > 0 {
			state = strconv.Itoa(check.Count)
		}
		rows = append(rows, []any{state, check.Name, check.Description})
	}
	if err := printTable(streams.Out, rows, ""); err != nil {
		return err
	}
	for _, check := range previewd.Broken(report.Checks) {
		fmt.Fprintf(streams.Out, "\n%s: %d\n  %s\n  %s\n", check.Name, check.Count, examplesText(check), adviceFor(check))
	}
	if report.Note != "" {
		fmt.Fprintf(streams.Err, "Artifacts were not checked: %s.\n", report.Note)
	}
	return nil
}

func examplesText(check previewd.Check) string {
	text := strings.Join(check.Examples, "\n  ")
	if more := check.Count - len(check.Examples); more > 0 {
		text += fmt.Sprintf("\n  and %d more", more)
	}
	return text
}

// adviceFor says what to do about a broken promise.
func adviceFor(check previewd.Check) string {
	switch {
	case check.Name == "audit_chain_broken", check.Name == "app_audit_chain_broken":
		return "Somebody has changed the audit log beside the program. Keep a copy of the database, compare it with a backup: previewd doctor audit verify"
	case check.Fixable:
		return "previewd doctor --fix repairs what has one right repair; what is left after that has none: restore a backup."
	case strings.HasPrefix(check.Name, "artifact_"):
		return "Bring the files back from a backup of the artifacts, or build the project again."
	case check.Name == "app_differs_from_worker":
		return "Start the gateway: it compares builds that are not over with the worker's. What stays is a lost event: report it."
	case check.Name == "build_source_missing":
		return "Cancel the build and create the next one with its files."
	}
	return "There is no one right repair. Keep a copy of the database, then restore a backup, and report it: this must never happen."
}

type doctorVerifyCmd struct{ both }

// Run implements the command.
func (c *doctorVerifyCmd) Run(e *env) (err error) {
	doctor, err := app.OpenDoctor(e.ctx, c.config())
	if err != nil {
		return err
	}
	defer func() {
		if failed := doctor.Close(); err == nil {
			err = failed
		}
	}()
	chains, err := doctor.VerifyAudit(e.ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		err = e.streams.printJSON(chains)
	}
	for _, chain := range chains {
		if !chain.OK {
			return brokenError("the audit log of the " + string(chain.Chain) + " is broken: " + chain.Text)
		}
		if !c.JSON {
			fmt.Fprintf(e.streams.Out, "OK: %s: %d entries, each follows from the one before; head %s\n", chain.Chain, chain.Entries, chain.Head)
		}
	}
	return err
}
