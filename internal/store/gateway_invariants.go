package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/previewd/previewd"
)

// Ages from which on something of the gateway counts as forgotten.
const (
	OldIntent     = time.Hour        // pending, past its deadline
	OldParked     = 10 * time.Minute // an event whose project is stored
	OldBilling    = 15 * time.Minute // an open session of a build that is over
	disagreeAfter = time.Minute      // a build's end that was not applied
)

var gatewayInvariants = []invariant{
	{name: "intent_without_outcome", promise: "A confirmed intent has its project, or its build.", query: `
		SELECT i.id FROM gateway_intents i
		LEFT JOIN gateway_projects p ON p.intent_id = i.id
		LEFT JOIN gateway_builds b ON b.id = i.build_id
		WHERE i.state = 'confirmed' AND (b.id IS NULL OR i.operation = 'project.create' AND (p.id IS NULL OR p.id <> i.project_id))`},
	{name: "app_project_without_intent", promise: "Every project of a user has its confirmed intent.", query: `
		SELECT p.id FROM gateway_projects p LEFT JOIN gateway_intents i ON i.id = p.intent_id AND i.project_id = p.id
		WHERE i.id IS NULL OR i.state <> 'confirmed' OR i.user_id <> p.owner_id`},
	{name: "intent_overdue", promise: "No intent is pending for longer than its deadline.", age: OldIntent, query: `
		SELECT id FROM gateway_intents WHERE state = 'pending' AND deadline_at < $1`},
	{name: "intent_request_wrong", promise: "What to ask the worker for is kept for as long as the intent is pending, and no longer.", fixable: true, query: `
		SELECT i.id FROM gateway_intents i LEFT JOIN gateway_intent_requests r ON r.intent_id = i.id
		WHERE (i.state IN ('pending', 'attention')) <> (r.intent_id IS NOT NULL)`},
	{name: "name_wrong", promise: "A user's name belongs to a project that is there or being made, and each such project has one.", fixable: true, query: `
		SELECT i.id FROM gateway_intents i
		LEFT JOIN gateway_projects p ON p.intent_id = i.id
		LEFT JOIN gateway_names n ON n.intent_id = i.id
		WHERE i.operation = 'project.create' AND (n.intent_id IS NOT NULL) <>
			(i.state IN ('pending', 'attention') OR i.state = 'confirmed' AND p.state <> 'deleted')`},
	{name: "app_project_without_newest_build", promise: "Every project of a user has its newest build.", query: `
		SELECT p.id FROM gateway_projects p
		LEFT JOIN (SELECT project_id, MAX(seq) AS top FROM gateway_builds GROUP BY project_id) b ON b.project_id = p.id
		WHERE b.top IS NULL OR b.top <> p.build_seq`},
	{name: "app_build_of_another_owner", promise: "A user's build has the owner of its project.", query: `
		SELECT b.id FROM gateway_builds b JOIN gateway_projects p ON p.id = b.project_id WHERE b.owner_id <> p.owner_id`},
	{name: "app_event_not_applied", promise: "The last event of a user's project is the last that was applied.", query: `
		SELECT p.id FROM gateway_projects p
		LEFT JOIN (SELECT project_id, MAX(seq) AS top FROM gateway_events GROUP BY project_id) e ON e.project_id = p.id
		WHERE COALESCE(e.top, 0) > p.last_event_seq`},
	{name: "app_status_not_as_events", promise: "A user's build has the status that its last event tells of.", query: `
		SELECT b.id FROM gateway_builds b JOIN gateway_events e ON e.project_id = b.project_id AND e.seq = b.event_seq
		WHERE b.status <> CASE e.type WHEN 'build.queued' THEN 'queued' WHEN 'build.retrying' THEN 'queued' WHEN 'build.completed' THEN 'deployed'
			WHEN 'build.failed' THEN 'failed' WHEN 'build.canceled' THEN 'canceled' WHEN 'build.superseded' THEN 'superseded' ELSE 'building' END
		  AND NOT EXISTS (SELECT 1 FROM gateway_audit a WHERE a.action = 'build.correct' AND a.subject = 'build/' || b.id)`},
	{name: "app_positions_with_gap", promise: "The events of users' projects count 1, 2, 3… up to the feed's own.", query: `
		SELECT 'highest ' || CAST(e.top AS TEXT) || ', feed ' || CAST(f.position AS TEXT) AS id
		FROM gateway_feed f CROSS JOIN (SELECT COALESCE(MAX(position), 0) AS top FROM gateway_events) e
		WHERE f.name = 'worker' AND e.top <> f.position`},
	{name: "event_parked_too_long", promise: "An event that came before its project is applied when the project is stored.", age: OldParked, query: `
		SELECT e.project_id || '/' || CAST(e.seq AS TEXT) AS id FROM gateway_parked_events e JOIN gateway_projects p ON p.id = e.project_id
		WHERE e.state = 'parked' AND e.parked_at < $1`},
	{name: "app_creation_without_audit", promise: "Every project of a user is in the audit log.", query: `
		SELECT p.id FROM gateway_projects p
		LEFT JOIN (SELECT DISTINCT subject FROM gateway_audit WHERE action = 'project.create') a ON a.subject = 'project/' || p.id
		WHERE a.subject IS NULL`},
}

var billingInvariants = []invariant{
	{name: "build_without_billing", promise: "Every build of a user has one billing session.", query: `
		SELECT b.id FROM gateway_builds b LEFT JOIN gateway_billing_sessions s ON s.build_id = b.id
		GROUP BY b.id HAVING COUNT(s.id) <> 1`},
	{name: "billing_open_too_long", promise: "A billing session is closed when its build is over.", fixable: true, age: OldBilling, query: `
		SELECT s.id FROM gateway_billing_sessions s JOIN gateway_builds b ON b.id = s.build_id
		WHERE s.state = 'open' AND b.finished_at < $1`},
	{name: "billing_closed_too_soon", promise: "A billing session is open while its build is not over.", query: `
		SELECT s.id FROM gateway_billing_sessions s JOIN gateway_builds b ON b.id = s.build_id
		WHERE s.state <> 'open' AND b.finished_at IS NULL`},
	{name: "billed_for_our_fault", promise: "Nobody pays for our faults, for what never began, or for what a newer build has replaced.", query: `
		SELECT id FROM gateway_billing_sessions
		WHERE state = 'settled' AND reason NOT IN ('deployed', 'failed_user', 'failed_timeout', 'canceled')`},
	{name: "billing_amount_wrong", promise: "A settled session is the sum of what was used; a voided one has used nothing.", query: `
		SELECT s.id FROM gateway_billing_sessions s
		LEFT JOIN (SELECT session_id, SUM(amount_micros) AS total, COUNT(*) AS n FROM gateway_billing_entries GROUP BY session_id) e ON e.session_id = s.id
		WHERE s.amount_micros <> COALESCE(e.total, 0) OR (s.state = 'settled') <> (COALESCE(e.n, 0) > 0)`},
	{name: "billing_entry_unbalanced", promise: "The two postings of an entry sum to nothing.", query: `
		SELECT e.entry_key AS id FROM gateway_billing_entries e LEFT JOIN gateway_billing_postings p ON p.entry_key = e.entry_key
		GROUP BY e.entry_key HAVING COUNT(p.account) <> 2 OR SUM(p.amount_micros) <> 0`},
	{name: "billing_balance_wrong", promise: "An account's balance is the sum of its postings.", fixable: true, query: `
		SELECT account AS id FROM (` + balances + `) AS a WHERE has IS NULL OR has <> must`},
}

// balances is what each account has, and what its postings say that it must have.
const balances = `SELECT n.account, MAX(a.balance_micros) AS has, CAST(SUM(n.amount_micros) AS BIGINT) AS must
	FROM (SELECT account, amount_micros FROM gateway_billing_postings UNION ALL SELECT account, 0 FROM gateway_billing_accounts) n
	LEFT JOIN gateway_billing_accounts a ON a.account = n.account GROUP BY n.account`

// GatewayChecks names the promises about the gateway's tables.
func GatewayChecks() []string {
	names := []string{gatewayChainCheck}
	for _, i := range slices.Concat(gatewayInvariants, billingInvariants) {
		names = append(names, i.name)
	}
	return names
}

// HasProjects reports whether a worker has ever worked on the database: without,
// it is that of a gateway by itself.
func (db *DB) HasProjects(ctx context.Context) (bool, error) {
	var one int
	return db.one(ctx, []any{&one}, `SELECT 1 FROM worker_projects LIMIT 1`)
}

// CheckAgreement compares a gateway's builds with those of the worker, which may
// be in another database: what has ended there a while ago has ended here, in
// the same way.
func (db *DB) CheckAgreement(ctx context.Context, worker *DB) (previewd.Check, error) {
	check := previewd.Check{Name: "app_differs_from_worker", Description: "The app shows of each build what the worker says of it."}
	now, err := worker.clock(ctx)
	if err != nil {
		return check, err
	}
	for below := "~"; ; {
		page, err := all(ctx, db.patient(), func(r rows) (p agreement, err error) {
			err = r.Scan(&p.id, &p.shown)
			return p, err
		}, `SELECT b.id, b.worker_status FROM gateway_builds b JOIN gateway_projects p ON p.id = b.project_id
			WHERE b.id < $1 AND p.attention = '' ORDER BY b.id DESC LIMIT 500`, below)
		if err != nil || len(page) == 0 {
			return check, err
		}
		below = page[len(page)-1].id
		theirs, err := worker.findEnds(ctx, below, page[0].id)
		if err != nil {
			return check, err
		}
		for _, p := range page {
			b, found := theirs[p.id]
			if found && (b.state == p.shown || b.finished == nil || now.Sub(timeOf(b.finished)) < disagreeAfter) {
				continue
			}
			if check.Count++; len(check.Examples) < maxExamples {
				check.Examples = append(check.Examples, fmt.Sprintf("%s: %s here, %q there", p.id, p.shown, b.state))
			}
		}
	}
}

// buildEnd is whether and how a build has ended.
type buildEnd struct {
	id, state string
	finished  *int64
}

// findEnds returns the builds of a range of ids.
func (db *DB) findEnds(ctx context.Context, from, to string) (map[string]buildEnd, error) {
	list, err := all(ctx, db.patient(), func(r rows) (b buildEnd, err error) {
		err = r.Scan(&b.id, &b.state, &b.finished)
		return b, err
	}, `SELECT id, state, finished_at FROM worker_builds WHERE id BETWEEN $1 AND $2`, from, to)
	found := make(map[string]buildEnd, len(list))
	for _, b := range list {
		found[b.id] = b
	}
	return found, err
}

// agreement is a build as the gateway knows the worker's status of it.
type agreement struct{ id, shown string }
