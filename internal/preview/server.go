// Package preview serves the files of versions. The host says which: a
// project's current version, or one build for ever.
package preview

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/telemetry"
)

// Source is what serving asks of the worker.
type Source interface {
	FindBuild(ctx context.Context, id string, wait time.Duration) (*previewd.Build, error)
	// FindSite returns what a project's host shows or, with a build id, that
	// build's. It returns CodeNotFound when there is no such project or build.
	FindSite(ctx context.Context, projectID, buildID string) (*previewd.Site, error)
}

// Config is everything a Server needs. A zero field takes the default its comment names.
type Config struct {
	Source     Source
	Streams    *httpx.Streams
	Artifacts  artifact.Store
	Recorder   httpx.Recorder // keeps problems; default nobody
	Domain     string         // hosts are <projectId>.<Domain> and <buildId>.b.<Domain>; no port
	CacheBytes int64          // of files in memory; default 64 MiB
	Log        *slog.Logger   // default slog.Default()
	Fresh      time.Duration  // how long a project's version is taken for current without a word; default 2 s
}

// Server serves previews.
type Server struct {
	Config
	sites *siteCache
	blobs *blobCache

	verified sync.Map // digests of large blobs that were read through
}

// New returns a Server.
func New(cfg Config) *Server {
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = 64 << 20
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Fresh == 0 {
		cfg.Fresh = 2 * time.Second
	}
	s := &Server{Config: cfg, blobs: newBlobCache(cfg.CacheBytes)}
	s.sites = newSiteCache(cfg.Fresh, s.load)
	return s
}

// Serves reports whether a Host header names a preview.
func (s *Server) Serves(host string) bool {
	_, ok := s.label(host)
	return ok
}

// label returns what stands before the preview domain in a Host header.
func (s *Server) label(host string) (string, bool) {
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	rest, ok := strings.CutSuffix(host, s.Domain)
	if !ok {
		if rest, ok = strings.CutSuffix(strings.ToLower(host), s.Domain); !ok {
			return "", false
		}
	}
	return strings.CutSuffix(rest, ".")
}

// Switched forgets what a project shows: its current version has changed.
func (s *Server) Switched(projectID string) { s.sites.forget(strings.ToLower(projectID)) }

// Deleted forgets all that was shown of a project: it is deleted. Other processes
// notice when what they know is no longer fresh.
func (s *Server) Deleted(projectID string) { s.sites.forgetProject(projectID) }

// Paths under this prefix are the preview server's own while there is no
// version to show.
const statusPath = "/_previewd/events"

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	label, _ := s.label(r.Host)
	site, err := s.sites.find(r.Context(), strings.ToLower(label))
	if err != nil {
		s.serveError(w, r, err)
		return
	}
	w.Header()["X-Content-Type-Options"] = headerNosniff
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "Previews are read with GET.", http.StatusMethodNotAllowed)
	case r.Header.Get("Service-Worker") != "":
		// It would answer for this host long after the version it came with.
		http.Error(w, "Previews run no service workers.", http.StatusForbidden)
	case site.files == nil && r.URL.Path == statusPath:
		s.streamStatus(w, r, site)
	case site.files == nil:
		s.serveStatus(w, r, site)
	default:
		s.serveFile(w, r, site)
	}
}

// load reads what a label shows.
func (s *Server) load(ctx context.Context, label string) (*site, error) {
	id, isBuild := strings.CutSuffix(label, ".b")
	projectID, buildID := id, ""
	if isBuild {
		projectID, buildID = "", id
	}
	if !previewd.IsID(id) {
		return nil, previewd.NotFound("preview", label)
	}
	found, err := s.Source.FindSite(ctx, projectID, buildID)
	if err != nil || found.Manifest == "" {
		return &site{Site: found}, err
	}
	manifest, err := artifact.ReadManifest(ctx, s.Artifacts, found.Manifest)
	if err != nil {
		return nil, err
	}
	return newSite(found, manifest), nil
}

func (s *Server) serveError(w http.ResponseWriter, r *http.Request, err error) {
	if previewd.ErrorCode(err) == previewd.CodeNotFound {
		w.Header().Set("Cache-Control", "no-store")
		servePage(w, r, http.StatusNotFound, statusView{State: "missing", Title: "There is no preview here", Text: "The address may be mistyped, or the project is gone."})
		return
	}
	s.problem(w, r, err)
}

// problem answers with an error as the API does: with a request id, logged.
func (s *Server) problem(w http.ResponseWriter, r *http.Request, err error) {
	httpx.WithRequest(s.Log, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		label, _ := s.label(r.Host)
		if id, isBuild := strings.CutSuffix(strings.ToLower(label), ".b"); isBuild {
			httpx.Note(r.Context(), telemetry.BuildID, id)
		} else {
			httpx.Note(r.Context(), telemetry.ProjectID, id)
		}
		httpx.WriteProblem(w, r, err)
	}), httpx.RecordTo(s.Recorder)).ServeHTTP(w, r)
}
