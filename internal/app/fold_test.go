package app_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/testkit"
)

// folded is what a client knows of a project from events alone.
type folded struct {
	build   string
	seq     int64
	status  string
	version int64
	events  int64
	deleted bool
}

// fold applies an event as a client would.
func (p *folded) fold(e previewd.Event) error {
	if e.Seq != p.events+1 {
		return fmt.Errorf("event %d of %s follows %d", e.Seq, e.ProjectID, p.events)
	}
	p.events = e.Seq
	number := func(name string) int64 { n, _ := e.Data[name].(float64); return int64(n) }
	switch {
	case e.Type == previewd.EventProjectDeleted:
		p.deleted = true
	case e.Type == previewd.EventVersionActivated:
		p.version = number("version")
	case strings.HasPrefix(string(e.Type), "build.") && number("seq") >= p.seq:
		if status, ok := e.Data["status"].(string); ok {
			p.build, p.seq, p.status = e.BuildID, number("seq"), status
		}
	}
	return nil
}

// A client that folds the events of all a user's projects, and loses its
// connection again and again, knows in the end what a GET tells.
func TestFoldedEventsAreTheState(t *testing.T) {
	const projects, follower = 50, ann
	eachLayout(t, func(t *testing.T, f *front) {
		token := f.token(follower)
		var done atomic.Bool
		var work sync.WaitGroup
		slots := make(chan struct{}, 4)
		for i := range projects {
			work.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				made := f.make(token)
				path := "/api/projects/" + made.Project.ID
				switch i % 5 {
				case 1:
					f.ask(token, http.MethodPost, "/api/builds/"+made.Build.ID+"/cancel", "")
				case 2, 3:
					f.ask(token, http.MethodPost, path+"/builds", `{"templateFiles":{"index.html":"more"}}`, "Idempotency-Key", previewd.NewRequestID())
				case 4:
					f.ask(token, http.MethodDelete, path, "")
				}
			})
		}
		go func() { work.Wait(); done.Store(true) }()

		state, cursor, reconnects := map[string]*folded{}, "0", 0
		quiet := func() bool {
			if !done.Load() {
				return false
			}
			var list struct{ Projects []previewd.AppProject }
			f.get(token, "/api/projects?limit=200", &list)
			for _, p := range list.Projects {
				known := state[p.ID]
				if p.Deleting || p.Build.FinishedAt == nil || known == nil || known.build != p.Build.ID || known.status != string(p.Status) || known.version != p.CurrentVersion {
					return false
				}
			}
			over := 0
			for _, p := range state {
				if p.deleted {
					over++
				}
			}
			return over == projects/5 && len(list.Projects)+over == projects
		}
		for deadline := time.Now().Add(90 * time.Second); !quiet(); {
			require.True(t, time.Now().Before(deadline), "nothing moves: %d projects, %d reconnects", len(state), reconnects)
			stream := testkit.FollowEvents(t, f.Config.BaseURL+"/api/events?after=0", "Authorization", "Bearer "+token, "Last-Event-ID", cursor)
			if stream.Status == http.StatusServiceUnavailable { // the server has not noticed yet who has gone
				time.Sleep(50 * time.Millisecond)
				continue
			}
			require.Equal(t, http.StatusOK, stream.Status, stream.Body)
			reconnects++
			for range 1 + rand.IntN(30) {
				frame, ok := stream.NextWithin(200 * time.Millisecond)
				if !ok {
					break
				}
				var e previewd.Event
				require.NoError(t, json.Unmarshal([]byte(frame.Data), &e))
				p := state[e.ProjectID]
				if p == nil {
					p = new(folded)
					state[e.ProjectID] = p
				}
				require.NoError(t, p.fold(e))
				cursor, deadline = frame.ID, time.Now().Add(90*time.Second)
			}
			stream.Close()
		}
		events := int64(0)
		for _, p := range state {
			events += p.events
		}
		t.Logf("%d projects, %d events, %d connections: no gap, no repeat", len(state), events, reconnects)
	})
}
