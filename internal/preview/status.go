package preview

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

//go:embed status.html
var statusHTML string

var statusTemplate = template.Must(template.New("status").Parse(statusHTML))

// statusView is the page that a host shows while it has no site to show.
type statusView struct {
	State     string // queued, building, failed, ended or missing
	Title     string
	Text      string
	Hint      string
	Where     string // file and line of a failure
	Reference string
	Follow    bool // the page follows the build and then shows the site
	Home      bool // link to the site's first page
}

func newStatusView(b *previewd.Build) statusView {
	v := statusView{Follow: true, Reference: b.ReferenceID}
	switch b.Status {
	case previewd.BuildQueued:
		v.State, v.Title, v.Text = "queued", "Waiting to be built", "This site is in the queue. It will show here by itself."
	case previewd.BuildBuilding, previewd.BuildCompleted:
		v.State, v.Title, v.Text = "building", "Building this site", "It will show here by itself in a moment."
	case previewd.BuildFailed:
		v.State, v.Title, v.Follow = "failed", "This build failed", false
		if f := b.Failure; f != nil {
			v.Text, v.Hint = f.Message, f.Hint
			v.Where = f.File
			if f.Line > 0 {
				v.Where = fmt.Sprintf("%s, line %d", f.File, f.Line)
			}
		}
	case previewd.BuildCanceling, previewd.BuildCanceled:
		v.State, v.Title, v.Text, v.Follow = "ended", "This build was canceled", "There is no site to show.", false
	case previewd.BuildSuperseded:
		v.State, v.Title, v.Text, v.Follow = "ended", "A newer build took this one's place", "There is no site to show here.", false
	}
	return v
}

// serveStatus tells how the build does. It is never a 200: that would say that
// the site is there.
func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request, site *site) {
	build, err := s.Source.FindBuild(r.Context(), site.BuildID, 0)
	if err != nil {
		s.serveError(w, r, err)
		return
	}
	view := newStatusView(build)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Preview-State", view.State)
	if view.Follow {
		h.Set("Retry-After", "1")
	}
	servePage(w, r, http.StatusServiceUnavailable, view)
}

func servePage(w http.ResponseWriter, r *http.Request, status int, view statusView) {
	var page bytes.Buffer
	if err := statusTemplate.Execute(&page, view); err != nil {
		http.Error(w, "There is nothing to show.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(page.Bytes())
	}
}

// streamStatus streams the build's events to the page, from the first: the build
// as a whole is not for everybody who sees the site.
func (s *Server) streamStatus(w http.ResponseWriter, r *http.Request, site *site) {
	serve, err := s.Streams.FollowBuild(r.Context(), httpx.BuildStream{
		BuildID: site.BuildID, Cursor: r.Header.Get("Last-Event-ID"), Whole: true,
	})
	if err != nil {
		s.serveError(w, r, err)
		return
	}
	serve(w, r)
}
