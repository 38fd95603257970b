package previewd_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/previewd/previewd"
)

// buildModel is one project's builds, two runners and a network that loses,
// repeats and delays. Every change of a build is BuildState.Apply's; the model
// does what Apply's callers do: it queues, claims, reaps, writes the version.
type buildModel struct {
	builds int
	claims uint8 // of one build; further ones are left out, to keep the model finite
	queue  bool  // policy: a newer build waits for the running one and does not supersede it
	either bool  // each build has its own policy; reject adds nothing that these two do not do
	mail   bool  // runners' words may come late, twice or never
	silent bool  // liveness counts on no runner
	hung   bool  // nor on leases that run out: runners renew them and never finish

	// Each of these takes one protection away, to show that the model would notice.
	noEpochCheck  bool // a runner's word counts whatever epoch it names
	noStateCheck  bool // a result counts whatever has become of its build
	noReaper      bool
	reaperIsBlind bool // the reaper overlooks builds that are being canceled
	sideBySide    bool // a build is claimed while another of its project runs
	lastWins      bool // the project shows what finished last
	noNewer       bool // a retry does not ask whether a newer build waits

	walked map[edge]bool // every transition that Apply has allowed
}

// Two attempts show a retry and the end of retries; a claim more than that
// comes from a release.
const modelAttempts = 2

// modelBuild is a BuildState whose times are reduced to before and after.
type modelBuild struct {
	status       uint8 // index into modelStatuses
	epoch        uint8
	attempt      uint8
	reason       uint8 // index into modelReasons
	backoff      bool  // queued, and not to be claimed yet
	leaseOut     bool  // the lease has run out
	deadlineOut  bool  // the cancel deadline has passed
	versions     uint8 // rows
	versionEpoch uint8 // whose files the version shows
}

// modelClaim is what a runner believes to hold: a build from 1, 0 if none. It
// may be stale. A runner that pauses just does nothing for a while.
type modelClaim struct{ build, epoch uint8 }

// modelMessage is a runner's word that is still on its way, perhaps from a
// runner that has long gone on. Unlike a call it may come late, twice or never.
type modelMessage struct {
	claim modelClaim
	what  uint8 // index into modelWords, from 1
}

type modelProject struct {
	builds  [3]modelBuild
	runners [2]modelClaim
	mail    modelMessage
	current uint8 // the build that the project shows, from 1
}

// String is for the messages of tests that fail.
func (p modelProject) String() string {
	var parts []string
	for i, b := range p.builds {
		if b.status != 0 {
			parts = append(parts, fmt.Sprintf("build %d: %+v, versions %d (epoch %d)", i+1, b.state(), b.versions, b.versionEpoch))
		}
	}
	return strings.Join(append(parts, fmt.Sprintf("runners: %+v, mail: %+v, shown: %d", p.runners, p.mail, p.current)), "\n\t")
}

var (
	modelStatuses = append([]previewd.BuildStatus{""}, previewd.BuildStatuses()...) // "" is not created yet
	modelReasons  = []previewd.CancelReason{"", previewd.CancelUser, previewd.CancelSuperseded}
	// modelWords is what a runner says. All but the first are its last word.
	modelWords = []previewd.Trigger{
		{}, // none
		{Kind: previewd.TriggerHeartbeat},
		{Kind: previewd.TriggerComplete},
		{Kind: previewd.TriggerFail, Class: previewd.FailureUser},
		{Kind: previewd.TriggerFail, Class: previewd.FailureInfra},
		{Kind: previewd.TriggerRelease},
		{Kind: previewd.TriggerAckCancel},
	}
)

// The names of steps, made once: there are millions.
var (
	runnerSays   = withWords("runner says")
	runnerWrites = withWords("runner writes")
	mailArrives  = withWords("mail arrives:")
	copyArrives  = withWords("mail arrives and will arrive again:")
)

func withWords(step string) (names []string) {
	for _, word := range modelWords {
		names = append(names, strings.TrimSpace(fmt.Sprint(step, " ", word.Kind, " ", word.Class)))
	}
	return names
}

const (
	wordHeartbeat = 1
	wordComplete  = 2
	wordAck       = 6
)

// is reports whether the build has a status.
func (b modelBuild) is(status previewd.BuildStatus) bool { return modelStatuses[b.status] == status }

func (b modelBuild) running() bool {
	return b.is(previewd.BuildBuilding) || b.is(previewd.BuildCanceling)
}

// over is true of builds yet to be created, too: nobody waits for them.
func (b modelBuild) over() bool { return b.status == 0 || modelStatuses[b.status].Terminal() }

// The model's one moment, and what lies before and after it.
var (
	modelNow   = epoch0.Add(time.Hour)
	modelPast  = modelNow.Add(-time.Second)
	modelAhead = modelNow.Add(time.Second)
)

func side(past bool) time.Time {
	if past {
		return modelPast
	}
	return modelAhead
}

// state is the build as the database would hold it.
func (b modelBuild) state() previewd.BuildState {
	s := previewd.BuildState{
		Status: modelStatuses[b.status], Epoch: int64(b.epoch), Attempt: int(b.attempt), MaxAttempts: modelAttempts,
		RunnableAt: side(!b.backoff), CancelReason: modelReasons[b.reason],
	}
	if b.running() {
		s.LeaseUntil = side(b.leaseOut)
	}
	if b.is(previewd.BuildCanceling) {
		s.CancelDeadline = side(b.deadlineOut)
	}
	return s
}

// apply pulls a trigger on a build. What Apply refuses changes nothing.
func (m buildModel) apply(b modelBuild, t previewd.Trigger) (modelBuild, error) {
	t.Now, t.Lease, t.Grace, t.Delay = modelNow, time.Second, time.Second, time.Second
	s, err := b.state().Apply(t)
	if err != nil {
		return b, err
	}
	m.walked[edge{modelStatuses[b.status], t.Kind, s.Status}] = true
	b.epoch, b.attempt = uint8(s.Epoch), uint8(s.Attempt)
	b.status, b.reason = indexOf(modelStatuses, s.Status), indexOf(modelReasons, s.CancelReason)
	b.backoff = b.is(previewd.BuildQueued) && s.RunnableAt.After(modelNow)
	b.leaseOut = b.running() && !s.LeaseUntil.After(modelNow)
	b.deadlineOut = b.is(previewd.BuildCanceling) && !s.CancelDeadline.After(modelNow)
	if b.over() {
		b.attempt = 0 // nobody asks any more
	}
	return b, nil
}

func indexOf[T comparable](list []T, value T) uint8 {
	for i, v := range list {
		if v == value {
			return uint8(i)
		}
	}
	panic(fmt.Sprint("not known: ", value))
}

// steps tells of all that can happen next.
func (m buildModel) steps(p modelProject, to walker[modelProject]) {
	walk := func(step string, next modelProject, fair bool) {
		if a, b := next.runners[0], next.runners[1]; a.build > b.build || a.build == b.build && a.epoch > b.epoch {
			next.runners[0], next.runners[1] = b, a // the runners are alike
		}
		to(step, next, fair)
	}
	for i := range m.builds {
		if p.builds[i].status == 0 {
			m.create(p, i, walk)
			break
		}
		m.timePasses(p, i, walk)
		m.reap(p, i, walk)
		m.restart(p, i, walk)
		m.claim(p, i, walk)
		if b, err := m.apply(p.builds[i], previewd.Trigger{Kind: previewd.TriggerCancel, Reason: previewd.CancelUser}); err == nil {
			next := p
			next.builds[i] = b
			walk("user cancels", next, false)
		}
	}
	for k := range p.runners {
		if p.runners[k].build != 0 {
			m.runnerSpeaks(p, k, walk)
		}
	}
	if p.mail.what != 0 {
		m.readMail(p, walk)
	}
}

// create queues the next build as worker.CreateBuild does: what waits is
// superseded, and so is what runs, unless the policy lets it go on.
func (m buildModel) create(p modelProject, i int, to walker[modelProject]) {
	for _, queue := range []bool{false, true} {
		if queue != m.queue && !m.either {
			continue
		}
		next := p
		for j := range i {
			older := &next.builds[j]
			if older.is(previewd.BuildQueued) || older.is(previewd.BuildBuilding) && !queue {
				*older, _ = m.apply(*older, previewd.Trigger{Kind: previewd.TriggerCancel, Reason: previewd.CancelSuperseded})
			}
		}
		next.builds[i].status = indexOf(modelStatuses, previewd.BuildQueued)
		to("create", next, false)
	}
}

func (m buildModel) timePasses(p modelProject, i int, to walker[modelProject]) {
	b := p.builds[i]
	if b.backoff {
		next := p
		next.builds[i].backoff = false
		to("backoff ends", next, true)
	}
	if b.running() && !b.leaseOut {
		next := p
		next.builds[i].leaseOut = true
		to("lease runs out", next, !m.hung)
	}
	if b.is(previewd.BuildCanceling) && !b.deadlineOut {
		next := p
		next.builds[i].deadlineOut = true
		to("cancel deadline passes", next, true)
	}
}

// reap asks for what worker.Reap asks for; whether it is due is Apply's to say.
func (m buildModel) reap(p modelProject, i int, to walker[modelProject]) {
	b := p.builds[i]
	if m.noReaper || m.reaperIsBlind && b.is(previewd.BuildCanceling) {
		return
	}
	kind := previewd.TriggerLeaseExpired
	if b.is(previewd.BuildQueued) {
		kind = previewd.TriggerQueueTimeout
	}
	if reaped, err := m.apply(b, previewd.Trigger{Kind: kind, Newer: m.newerWaits(p, i)}); err == nil {
		next := p
		next.builds[i] = reaped
		to("reaper: "+string(kind), next, true)
	}
}

// restart is worker.Recover: a server that starts gives back what its old self
// ran. The model lets the old self live on, which is worse than what can be.
func (m buildModel) restart(p modelProject, i int, to walker[modelProject]) {
	b := p.builds[i]
	if !b.running() {
		return
	}
	t := previewd.Trigger{Kind: previewd.TriggerRelease, Epoch: int64(b.epoch), Newer: m.newerWaits(p, i)}
	if released, err := m.apply(b, t); err == nil {
		p.builds[i] = released
		to("restart", p, false)
	}
}

func (m buildModel) newerWaits(p modelProject, i int) bool {
	for _, b := range p.builds[i+1:] {
		if b.is(previewd.BuildQueued) {
			return !m.noNewer
		}
	}
	return false
}

// claim gives a build to an idle runner, as worker.tryClaim does: no other
// build of the project may run.
func (m buildModel) claim(p modelProject, i int, to walker[modelProject]) {
	for _, b := range p.builds {
		if b.running() && !m.sideBySide {
			return
		}
	}
	b, err := m.apply(p.builds[i], previewd.Trigger{Kind: previewd.TriggerClaim})
	if err != nil || b.epoch > m.claims {
		return
	}
	for k, held := range p.runners {
		if held.build == 0 {
			p.builds[i], p.runners[k] = b, modelClaim{uint8(i + 1), b.epoch}
			to("claim", p, !m.silent)
			return
		}
	}
}

// runnerSpeaks lets a runner call, write, or die. It calls and hears the
// answer, or what it wrote is on its way when it has gone on.
func (m buildModel) runnerSpeaks(p modelProject, k int, to walker[modelProject]) {
	claim := p.runners[k]
	dead := p
	dead.runners[k] = modelClaim{}
	to("runner dies", dead, false)
	for what := uint8(wordHeartbeat); int(what) < len(modelWords); what++ {
		b := p.builds[claim.build-1]
		if asked := b.is(previewd.BuildCanceling) && b.epoch == claim.epoch; what == wordAck && !asked {
			continue
		}
		next, err := m.hear(p, claim, what)
		if what != wordHeartbeat || err != nil {
			next.runners[k] = modelClaim{}
		}
		to(runnerSays[what], next, !m.silent)
		if m.mail && p.mail.what == 0 {
			next = p
			next.mail = modelMessage{claim, what}
			if what != wordHeartbeat {
				next.runners[k] = modelClaim{}
			}
			to(runnerWrites[what], next, false)
		}
	}
}

func (m buildModel) readMail(p modelProject, to walker[modelProject]) {
	lost := p
	lost.mail = modelMessage{}
	to("mail is lost", lost, false)
	next, err := m.hear(p, p.mail.claim, p.mail.what)
	to(copyArrives[p.mail.what], next, false)
	next.mail = modelMessage{}
	if p.mail.what == wordComplete && previewd.ErrorCode(err) == previewd.CodeBuildCanceling {
		next.mail = modelMessage{p.mail.claim, wordAck} // it drops the result and says so
	}
	to(mailArrives[p.mail.what], next, false)
}

// hear does with a runner's word what worker.FinishBuild does: one transaction
// moves the build and, if it has completed, stores its version and the pointer.
func (m buildModel) hear(p modelProject, claim modelClaim, what uint8) (modelProject, error) {
	i := int(claim.build - 1)
	t := modelWords[what]
	t.Epoch, t.Newer = int64(claim.epoch), m.newerWaits(p, i)
	b := p.builds[i]
	if m.noEpochCheck {
		t.Epoch = int64(b.epoch)
	}
	if m.noStateCheck && what == wordComplete {
		b.status = indexOf(modelStatuses, previewd.BuildBuilding)
	}
	b, err := m.apply(b, t)
	if err != nil {
		return p, err
	}
	p.builds[i] = b
	if b.is(previewd.BuildCompleted) {
		p.builds[i].versions, p.builds[i].versionEpoch = min(b.versions+1, 2), claim.epoch
		if p.current < claim.build || m.lastWins {
			p.current = claim.build
		}
	}
	return p, nil
}
