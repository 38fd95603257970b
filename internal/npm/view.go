package npm

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/previewd/previewd/internal/telemetry"
)

// Reasons of refusals.
const (
	NotFound    = "not_found"   // the registry says that it does not exist
	Unreachable = "unreachable" // it could not be had whole and right, or not be stored
	Blocked     = "blocked"     // its package is on the block list
	TooYoung    = "too_young"   // it was published less than MinAge ago
	Refused     = "refused"     // nobody may ask for that
)

// Fetch is a tarball that a build got.
type Fetch struct {
	Name, Version string
	Bytes         int64
	Integrity     string // sha512-…
	Cached        bool   // it was there before the build asked
}

// Refusal is a request that a build did not get what it asked for.
type Refusal struct {
	Path   string
	Status int
	Reason string
}

// denial is an error that says how it is answered.
type denial struct {
	status  int
	reason  string
	message string
}

func (d *denial) Error() string { return d.message }

var (
	errMethod   = &denial{http.StatusMethodNotAllowed, Refused, "This mirror is read-only."}
	errPath     = &denial{http.StatusForbidden, Refused, "This mirror has packages only: no other endpoints, no other spellings."}
	errTooMany  = &denial{http.StatusForbidden, Refused, "This build has fetched too many packages."}
	errTooBig   = &denial{http.StatusBadGateway, Refused, "This is too big."}
	errBlocked  = &denial{http.StatusNotFound, Blocked, "This package is blocked here."}
	errTooYoung = &denial{http.StatusNotFound, TooYoung, "This was published too recently."}
	errNotFound = &denial{http.StatusNotFound, NotFound, "The registry does not know this."}
	errFailed   = &denial{http.StatusBadGateway, Unreachable, "This could not be had from the registry."}
)

const (
	maxRequests = 16 // of one build at a time: others must get their turn
	// A list of what was fetched is only worth something when it is whole, so
	// there is an end to what may be fetched.
	maxFetched  = 20_000
	maxRefusals = 100
)

// View is the mirror as one build sees it; it remembers what the build fetched.
type View struct {
	mirror *Mirror
	base   string
	slots  chan struct{}

	mu      sync.Mutex
	seen    map[string]bool // paths of tarballs
	fetched []Fetch
	refused []Refusal
}

// View returns a view for a build that reaches it under the URL base, such as
// http://127.0.0.1:4873.
func (m *Mirror) View(base string) *View {
	return &View{mirror: m, base: strings.TrimRight(base, "/"), slots: make(chan struct{}, maxRequests), seen: map[string]bool{}}
}

// Fetched lists the tarballs that the build got, in the order of the first fetch, each once.
func (v *View) Fetched() []Fetch {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.fetched)
}

// Refused lists what the build did not get, each once: the first hundred.
func (v *View) Refused() []Refusal {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.refused)
}

// ServeHTTP answers GET and HEAD for packuments, manifests of versions and tarballs,
// and nothing else. Of a request only its path and its Accept are read.
func (v *View) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case v.slots <- struct{}{}:
		defer func() { <-v.slots }()
	case <-r.Context().Done():
		return
	}
	err := v.serve(w, r)
	if err == nil || r.Context().Err() != nil {
		return
	}
	denied := errFailed
	if !errors.As(err, &denied) {
		v.mirror.cfg.Log.Warn("a package could not be had", telemetry.Path, r.URL.EscapedPath(), telemetry.Error, err)
	}
	v.refuse(w, r, denied)
}

func (v *View) refuse(w http.ResponseWriter, r *http.Request, d *denial) {
	path := r.URL.EscapedPath()
	refusal := Refusal{Path: path[:min(len(path), maxPath)], Status: d.status, Reason: d.reason}
	v.mu.Lock()
	if len(v.refused) < maxRefusals && !slices.Contains(v.refused, refusal) {
		v.refused = append(v.refused, refusal)
	}
	v.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(d.status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": d.message}) // who has gone away reads nothing
}

func (v *View) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return errMethod
	}
	t, ok := parseTarget(r.URL.EscapedPath())
	if !ok || r.URL.IsAbs() || r.URL.RawQuery != "" || r.URL.ForceQuery {
		return errPath // who names a server takes the mirror for a proxy
	}
	if slices.Contains(v.mirror.cfg.Block, t.name) {
		return errBlocked
	}
	switch {
	case t.file != "":
		return v.serveTarball(w, r, t)
	case t.version != "":
		return v.serveManifest(w, t)
	}
	return v.servePackument(w, r, t)
}

func (v *View) servePackument(w http.ResponseWriter, r *http.Request, t target) error {
	form := full
	if strings.Contains(r.Header.Get("Accept"), abbreviated) {
		form = abbreviated
	}
	kept, err := v.mirror.packument(t.name, form)
	if err != nil {
		return err
	}
	defer kept.close()
	size := kept.body.Size() + int64(kept.Shown*(len(v.base)-1))
	w.Header().Set("Vary", "Accept")
	answer(w, r, kept, size, baseWriter{w, v.base})
	return nil
}

func (v *View) serveManifest(w http.ResponseWriter, t target) error {
	manifest, err := v.mirror.manifest(t, v.base)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", full)
	_, _ = w.Write(manifest) // who has gone away reads nothing
	return nil
}

func (v *View) serveTarball(w http.ResponseWriter, r *http.Request, t target) error {
	kept, cached, err := v.mirror.tarball(t)
	if err != nil {
		return err
	}
	defer kept.close()
	fetch := Fetch{Name: t.name, Version: t.tarballVersion(), Bytes: kept.body.Size(), Integrity: kept.Integrity, Cached: cached}
	if !v.remember(t.tarball(), fetch) {
		return errTooMany
	}
	answer(w, r, kept, kept.body.Size(), w)
	return nil
}

// remember notes a fetch. It reports false when the build has fetched too much.
func (v *View) remember(path string, fetch Fetch) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.seen[path] {
		return true
	}
	if len(v.fetched) == maxFetched {
		return false
	}
	v.seen[path] = true
	v.fetched = append(v.fetched, fetch)
	return true
}

// answer sends a body of which all is there. What breaks now breaks the
// connection, for the client knows the size.
func answer(w http.ResponseWriter, r *http.Request, kept *entry, size int64, body io.Writer) {
	w.Header().Set("Content-Type", cmp.Or(kept.Type, "application/octet-stream"))
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	if r.Method != http.MethodHead {
		_, _ = io.Copy(body, kept.body)
	}
}

// baseWriter fills in the base of a view.
type baseWriter struct {
	w    io.Writer
	base string
}

func (b baseWriter) Write(p []byte) (int, error) {
	_, err := b.w.Write(insertBase(p, b.base))
	return len(p), err
}
