// Package fault lets tests break the product at named places. Both of its
// parts are empty in a normal build: the compiler leaves nothing of them.
//
// With the build tag failpoint, Point kills, delays or fails where
// PREVIEWD_FAILPOINTS says. With the build tag mutate, Off switches the one
// mechanism off that PREVIEWD_MUTATE names, to show that the tests notice.
package fault

// Mechanism is something that protects a promise.
type Mechanism string

// The mechanisms that can be switched off.
const (
	EpochCheck      Mechanism = "epoch-check"      // a lost epoch writes nothing
	TerminalAbsorbs Mechanism = "terminal-absorbs" // terminal states absorb
	CancelBeats     Mechanism = "cancel-beats"     // canceling never completes
	StateGuard      Mechanism = "state-guard"      // a write names the state that was read
	RowLock         Mechanism = "row-lock"         // a transition locks the project's row
	NewestWins      Mechanism = "newest-wins"      // the pointer never goes back
	KeyFirst        Mechanism = "key-first"        // the key is claimed in the create's transaction
	Fingerprint     Mechanism = "fingerprint"      // a key answers one request only
	Window          Mechanism = "window"           // a double click without a key makes one project
	Reaper          Mechanism = "reaper"           // lost builds are taken back
	ReapCanceling   Mechanism = "reap-canceling"   // lost builds that are being canceled, too
	FeedOrder       Mechanism = "feed-order"       // feed positions are given after commit
	AuditHead       Mechanism = "audit-head"       // one locked row decides what follows
	ImmediateBegin  Mechanism = "immediate-begin"  // SQLite takes the write lock at BEGIN
	BlobCheck       Mechanism = "blob-check"       // completed only when the files are there
	Fairness        Mechanism = "fairness"         // owners take turns
	QueueCap        Mechanism = "queue-cap"        // waiting builds are bounded
	Quotas          Mechanism = "quotas"           // users have bounds
	StableKey       Mechanism = "stable-key"       // an intent asks with one key at every try
	Reconciler      Mechanism = "reconciler"       // intents that were left open are taken up again
	AppOrder        Mechanism = "app-order"        // an event is applied once, and none after a later one
	Parking         Mechanism = "parking"          // events wait for their project
	BillingInTx     Mechanism = "billing-in-tx"    // a session opens with its project
	BillingOnce     Mechanism = "billing-once"     // an entry is posted once
	NameOnce        Mechanism = "name-once"        // a name is reserved with its intent
	RefusalKept     Mechanism = "refusal-kept"     // a refusal that depends on what is stored is the key's answer
	CancelKept      Mechanism = "cancel-kept"      // what its user has taken back is not confirmed
	IntentClaim     Mechanism = "intent-claim"     // one process works on an intent at a time
	ClaimsBack      Mechanism = "claims-back"      // a start gives back the claims of the last life
	AdoptOwn        Mechanism = "adopt-own"        // only what this gateway has asked for is adopted
	FreshRead       Mechanism = "fresh-read"       // a read joins a query that is sent after it came
)

// Mechanisms lists every mechanism.
func Mechanisms() []Mechanism {
	return []Mechanism{
		EpochCheck, TerminalAbsorbs, CancelBeats, StateGuard, RowLock, NewestWins, KeyFirst, Fingerprint, Window,
		Reaper, ReapCanceling, FeedOrder, AuditHead, ImmediateBegin, BlobCheck, Fairness, QueueCap, FreshRead,
		Quotas, StableKey, Reconciler, AppOrder, Parking, BillingInTx, BillingOnce,
		NameOnce, RefusalKept, CancelKept, IntentClaim, ClaimsBack, AdoptOwn,
	}
}

// Role is a kind of process that passes points: one that is both passes those of
// both.
type Role string

// The roles.
const (
	Worker  Role = "worker"
	Gateway Role = "gateway"
)

// Points lists the named points that a project, its builds and their bill lead a
// role through: before and after each commit, and where a request, an answer or
// a claim crosses from one process to another. Other transactions have their two
// points as well and are not listed: those of tokens, tickets, references and
// webhooks, of upkeep, of operators, and of broken or restored databases.
func Points(of Role) (points []string) {
	names, commits := pointsOf(of)
	points = append(points, names...)
	for _, tx := range commits {
		points = append(points, tx+".before_commit", tx+".after_commit")
	}
	return points
}

func pointsOf(of Role) (points, commits []string) {
	switch of {
	case Worker:
		return []string{"http.request", "http.answer", "source.stored", "runner.claimed", "runner.built", "runner.finished"}, []string{
			"create", "build.create", "build.cancel", "claim", "heartbeat", "step", "log", "finish", "activate", "project.delete",
			"reap.find", "reap", "prune", "feed",
		}
	case Gateway:
		return []string{"gateway.before_worker", "gateway.after_worker"}, []string{
			"intent", "intent.claim", "intent.confirm", "intent.postpone", "intent.renew", "intent.reject", "intent.discard",
			"intent.request_cancel", "intent.cancel", "intent.recover", "intent.hasten_all",
			"feed.apply", "feed.parked", "feed.release", "compare", "biller.claim", "biller.told",
			"app.rename", "app.delete", "app.deleted", "app.cancel", "app.activate",
		}
	}
	return nil, nil
}
