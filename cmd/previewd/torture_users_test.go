package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/previewd/previewd"
)

// users go on whatever happens to what they call.
type users struct {
	*apps
	gateways []*node
	rate     int // creates a second
	name     string
	plain    bool // they create projects and do nothing else
	made     int
	stop     context.CancelFunc
	pending  sync.WaitGroup
}

// maxUsers is how many are under way: more would only queue.
const maxUsers = 100

func (u *users) begin() {
	ctx, stop := context.WithCancel(context.Background())
	u.stop = stop
	u.Cleanup(stop)
	slots := make(chan struct{}, maxUsers)
	u.pending.Go(func() {
		every := time.NewTicker(time.Second / time.Duration(u.rate))
		defer every.Stop()
		for ; ctx.Err() == nil; u.made++ {
			<-every.C
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			i := u.made
			u.pending.Go(func() {
				defer func() { <-slots }()
				u.live(ctx, i)
			})
		}
	})
}

// end lets the users get what they wait for.
func (u *users) end() {
	u.stop()
	u.pending.Wait()
}

// live is one user: who creates a project and does something with it.
func (u *users) live(ctx context.Context, i int) {
	random := rand.New(rand.NewPCG(u.seed, uint64(i)))
	prompt, user := fmt.Sprintf("%s-%06d", u.name, i), i%7
	var more map[string]any
	switch {
	case random.IntN(6) == 0:
		more = map[string]any{"name": "name of " + prompt}
	case random.IntN(12) == 0:
		more = map[string]any{"templateFiles": map[string]string{"../up": "x"}}
	}
	a := u.create(u.gateways, user, prompt, random.IntN(4) == 0, more)
	if a.intent != "" && a.buildID == "" && random.IntN(3) == 0 {
		u.takeBack(a)
	}
	u.follow(u.gateways, a)
	if a.buildID == "" || a.canceled {
		return
	}
	u.read(a)
	if u.plain {
		return
	}
	for step := range 1 + random.IntN(3) {
		switch random.IntN(6) {
		case 0, 1:
			u.rebuild(random, a, fmt.Sprintf("%s-build-%d", prompt, step))
		case 2:
			u.cancelBuild(a)
		case 3:
			u.activate(a)
		case 4:
			u.rename(a, fmt.Sprintf("%s renamed %d", prompt, step))
		case 5:
			u.read(a)
		}
	}
	for range 5 { // others would wait for who waits longer
		if i%4 > 0 || ctx.Err() != nil || u.over(a) {
			break
		}
	}
	u.activate(a)
	if random.IntN(4) == 0 {
		u.remove(a)
	}
}

// call repeats a request until it is answered; a status that is none of these is
// a lie.
func (u *users) call(r request, allowed ...int) *reply {
	got, _ := u.insistOn(u.gateways, r)
	if got == nil {
		return nil
	}
	for _, status := range allowed {
		if got.status == status {
			return got
		}
	}
	u.ledger.lie("%s %s was answered %s", r.method, r.path, got)
	return nil
}

// takeBack cancels an intent, if it is not too late.
func (u *users) takeBack(a *ask) {
	got := u.call(request{user: a.user, method: http.MethodPost, path: "/api/intents/" + a.intent + "/cancel"},
		http.StatusOK, http.StatusConflict, http.StatusNotFound)
	if got != nil && got.status == http.StatusOK {
		u.tell(func() { a.canceled = true })
	}
}

// read looks at what the user was told of: it must be there.
func (u *users) read(a *ask) {
	u.call(request{user: a.user, method: http.MethodGet, path: "/api/projects/" + a.projectID}, http.StatusOK)
	u.over(a)
}

// over waits a moment for the end of the last build, and reports whether it came.
func (u *users) over(a *ask) bool {
	got := u.call(request{user: a.user, method: http.MethodGet, path: "/api/builds/" + a.buildID + "?wait=1s"}, http.StatusOK)
	if got == nil {
		return true
	}
	var b previewd.AppBuild
	if err := got.read(&b); err != nil {
		u.ledger.lie("build %s reads %s", a.buildID, got)
		return true
	}
	if b.FinishedAt != nil {
		u.ledger.saw(a.buildID+" in the app", finalWords[b.Status])
	}
	return b.FinishedAt != nil
}

// finalWords are the worker's for those that the app shows in the end.
var finalWords = map[previewd.ProjectStatus]previewd.BuildStatus{
	previewd.ProjectDeployed: previewd.BuildCompleted, previewd.ProjectFailed: previewd.BuildFailed,
	previewd.ProjectCanceled: previewd.BuildCanceled, previewd.ProjectSuperseded: previewd.BuildSuperseded,
}

func (u *users) rebuild(random *rand.Rand, of *ask, prompt string) {
	policy := []previewd.BuildPolicy{previewd.PolicySupersede, previewd.PolicyQueue, previewd.PolicyReject}[random.IntN(3)]
	a := &ask{user: of.user, build: true, began: time.Now()}
	got, asked := u.insistOn(u.gateways, request{
		user: of.user, method: http.MethodPost, path: "/api/projects/" + of.projectID + "/builds", key: "torture-key-" + prompt,
		body: pageOf(prompt, map[string]any{"policy": policy}),
	})
	a.asked = asked
	u.heard(prompt, a, got)
	u.follow(u.gateways, a)
	if a.refused != "" && a.refused != previewd.CodeBuildActive {
		u.ledger.lie("build %s was refused: %s", prompt, got)
	}
	if a.buildID != "" && a.projectID != of.projectID {
		u.ledger.lie("build %s is one of %s", prompt, a.projectID)
	}
}

func (u *users) cancelBuild(a *ask) {
	u.call(request{user: a.user, method: http.MethodPost, path: "/api/builds/" + a.buildID + "/cancel"}, http.StatusOK, http.StatusAccepted)
}

// activate shows a version of the project, if it has one.
func (u *users) activate(a *ask) {
	got := u.call(request{user: a.user, method: http.MethodGet, path: "/api/projects/" + a.projectID + "/versions"}, http.StatusOK)
	var page previewd.VersionPage
	if got == nil || got.read(&page) != nil || len(page.Versions) == 0 {
		return
	}
	u.call(request{
		user: a.user, method: http.MethodPost, path: fmt.Sprintf("/api/projects/%s/versions/%d/activate", a.projectID, page.Versions[0].Number),
	}, http.StatusOK)
}

func (u *users) rename(a *ask, name string) {
	u.call(request{user: a.user, method: http.MethodPatch, path: "/api/projects/" + a.projectID, body: map[string]any{"name": name}}, http.StatusOK)
}

// remove deletes the project. The answer to a repeated deletion is that there is
// no such project.
func (u *users) remove(a *ask) {
	if got := u.call(request{user: a.user, method: http.MethodDelete, path: "/api/projects/" + a.projectID},
		http.StatusNoContent, http.StatusAccepted, http.StatusNotFound); got != nil {
		u.tell(func() { u.gone[a.projectID] = true })
	}
}
