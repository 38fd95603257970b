package preview

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
)

// site is a version, ready to be served.
type site struct {
	*previewd.Site
	files    map[string]*file // nil while there is no version
	fallback *file
	notFound *file
	buildID  []string // the X-Build-Id header
}

// file is one file of a site with its headers made once.
type file struct {
	path         string
	contentType  []string
	cacheControl []string
	vary         bool
	document     bool // a page: what it loads and where it sends people is its business
	plain        form
	gzip, brotli *form
}

// form is one encoding of a file.
type form struct {
	previewd.Blob
	etag     []string
	length   []string
	encoding []string
}

var (
	headerNosniff   = []string{"nosniff"}
	headerReferrer  = []string{"strict-origin-when-cross-origin"}
	headerCluster   = []string{"?1"}
	headerVary      = []string{"Accept-Encoding"}
	headerImmutable = []string{"public, max-age=31536000, immutable"}
	headerNoCache   = []string{"public, max-age=0, must-revalidate"}
)

func newSite(found *previewd.Site, m previewd.Manifest) *site {
	s := &site{Site: found, files: make(map[string]*file, len(m.Files)), buildID: []string{found.BuildID}}
	for _, entry := range m.Files {
		f := &file{
			path: entry.Path, contentType: []string{contentType(entry.Path)}, cacheControl: headerNoCache,
			plain: newForm(entry.Blob, "", ""), vary: entry.Gzip != nil || entry.Brotli != nil,
			document: strings.HasSuffix(entry.Path, ".html"),
		}
		if entry.Immutable {
			f.cacheControl = headerImmutable
		}
		if entry.Gzip != nil {
			f.gzip = new(newForm(*entry.Gzip, "gzip", "-gz"))
		}
		if entry.Brotli != nil {
			f.brotli = new(newForm(*entry.Brotli, "br", "-br"))
		}
		s.files[entry.Path] = f
	}
	s.fallback, s.notFound = s.files[m.Fallback], s.files["404.html"]
	return s
}

func newForm(b previewd.Blob, encoding, suffix string) form {
	f := form{Blob: b, etag: []string{`"` + string(b.Digest[:32]) + suffix + `"`}, length: []string{strconv.FormatInt(b.Size, 10)}}
	if encoding != "" {
		f.encoding = []string{encoding}
	}
	return f
}

// find returns the file that answers a path, and the status to answer with; or
// where to go instead.
func (s *site) find(urlPath string) (f *file, status int, redirect string) {
	name := strings.TrimPrefix(urlPath, "/")
	if f := s.files[name]; f != nil {
		return f, http.StatusOK, ""
	}
	if name == "" || strings.HasSuffix(name, "/") {
		if f := s.files[name+"index.html"]; f != nil {
			return f, http.StatusOK, ""
		}
	} else {
		if s.files[name+"/index.html"] != nil {
			return nil, http.StatusFound, urlPath + "/"
		}
		if f := s.files[name+".html"]; f != nil {
			return f, http.StatusOK, ""
		}
	}
	// A missing script or picture is missing: an app's page in its place would
	// only hide that.
	if s.fallback != nil && (path.Ext(name) == "" || path.Ext(name) == ".html") {
		return s.fallback, http.StatusOK, ""
	}
	return s.notFound, http.StatusNotFound, ""
}

func (s *Server) serveFile(w http.ResponseWriter, r *http.Request, site *site) {
	f, status, redirect := site.find(r.URL.Path)
	h := w.Header()
	h["X-Build-Id"] = site.buildID
	switch {
	case redirect != "":
		h["Cache-Control"] = headerNoCache
		// One slash only: two would name another host.
		target := url.URL{Path: "/" + strings.TrimLeft(redirect, "/"), RawQuery: r.URL.RawQuery}
		http.Redirect(w, r, target.String(), status)
		return
	case f == nil:
		h["Cache-Control"] = headerNoCache
		servePage(w, r, status, statusView{State: "missing", Title: "This page does not exist", Text: "The site has no page at this address.", Home: true})
		return
	}
	h["Content-Type"] = f.contentType
	h["Cache-Control"] = f.cacheControl
	if f.vary {
		h["Vary"] = headerVary
	}
	if f.document {
		h["Referrer-Policy"] = headerReferrer
		h["Origin-Agent-Cluster"] = headerCluster
	}
	form := &f.plain
	if r.Header.Get("Range") == "" {
		form = f.choose(r.Header.Get("Accept-Encoding"))
	}
	h["Etag"] = form.etag
	if status == http.StatusOK && matches(r.Header.Get("If-None-Match"), form.etag[0]) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	s.serveForm(w, r, f, form, status)
}

// matches reports whether an If-None-Match header names the tag: weakly, as
// RFC 9110 §13.1.2 has it.
func matches(header, etag string) bool {
	if header == "" || header == etag {
		return header != ""
	}
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == etag {
			return true
		}
	}
	return false
}

// maxCached is the size above which a file is read from disk each time.
const maxCached = 4 << 20

func (s *Server) serveForm(w http.ResponseWriter, r *http.Request, f *file, form *form, status int) {
	if form.encoding != nil {
		w.Header()["Content-Encoding"] = form.encoding
	}
	if form.Size > maxCached {
		s.serveLarge(w, r, form, status)
		return
	}
	content, ok := s.blobs.find(form.Digest)
	if !ok {
		var err error
		if content, err = artifact.ReadBlob(r.Context(), s.Artifacts, form.Digest, maxCached); err != nil {
			s.serveBroken(w, r, err)
			return
		}
		s.blobs.add(form.Digest, content)
	}
	h := w.Header()
	if status == http.StatusOK && r.Header.Get("Range") != "" {
		http.ServeContent(w, r, f.path, time.Time{}, bytes.NewReader(content))
		return
	}
	if !f.vary {
		h["Accept-Ranges"] = headerBytes // players ask before they seek; nobody seeks in text
	}
	h["Content-Length"] = form.length
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(content) // a reader that has gone away needs no answer
	}
}

var headerBytes = []string{"bytes"}

func (s *Server) serveLarge(w http.ResponseWriter, r *http.Request, form *form, status int) {
	err := s.verify(r.Context(), form.Digest)
	var content io.ReadSeekCloser
	if err == nil {
		content, err = s.Artifacts.Open(r.Context(), form.Digest)
	}
	if err != nil {
		s.serveBroken(w, r, err)
		return
	}
	defer content.Close()
	if status != http.StatusOK {
		w.Header()["Content-Length"] = form.length
		w.WriteHeader(status)
		_, _ = io.Copy(w, content)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, content)
}

// verify reads a large blob through once, before it is first served.
func (s *Server) verify(ctx context.Context, digest previewd.Digest) error {
	if _, done := s.verified.Load(digest); done {
		return nil
	}
	err := artifact.Verify(ctx, s.Artifacts, digest)
	if err == nil {
		s.verified.Store(digest, true)
	}
	return err
}

// serveBroken answers for a file whose bytes are gone or not what they were.
func (s *Server) serveBroken(w http.ResponseWriter, r *http.Request, err error) {
	for _, name := range []string{"Etag", "Content-Encoding", "Cache-Control", "Vary"} {
		w.Header().Del(name)
	}
	s.problem(w, r, &previewd.Error{Code: previewd.CodeInternal, Err: err})
}

// choose returns the smallest form that the client takes.
func (f *file) choose(accept string) *form {
	if f.brotli != nil && accepts(accept, "br") {
		return f.brotli
	}
	if f.gzip != nil && accepts(accept, "gzip") {
		return f.gzip
	}
	return &f.plain
}

// accepts reports whether an Accept-Encoding header names a coding without
// ruling it out by q=0 (RFC 9110 §12.5.3).
func accepts(header, coding string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if !strings.EqualFold(strings.TrimSpace(name), coding) {
			continue
		}
		q, ok := strings.CutPrefix(strings.TrimSpace(params), "q=")
		weight, err := strconv.ParseFloat(q, 64)
		return !ok || err != nil || weight > 0
	}
	return false
}

// Types are fixed here: the machine's own table must not decide what a site is.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".htm": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
	".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8", ".cjs": "text/javascript; charset=utf-8",
	".json": "application/json", ".map": "application/json", ".webmanifest": "application/manifest+json",
	".xml": "application/xml", ".rss": "application/rss+xml", ".atom": "application/atom+xml",
	".txt": "text/plain; charset=utf-8", ".md": "text/markdown; charset=utf-8", ".csv": "text/csv; charset=utf-8",
	".svg": "image/svg+xml", ".png": "image/png", ".apng": "image/apng", ".jpg": "image/jpeg", ".jpeg": "image/jpeg",
	".gif": "image/gif", ".webp": "image/webp", ".avif": "image/avif", ".ico": "image/x-icon", ".bmp": "image/bmp",
	".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf", ".otf": "font/otf", ".eot": "application/vnd.ms-fontobject",
	".mp4": "video/mp4", ".webm": "video/webm", ".ogv": "video/ogg", ".mov": "video/quicktime", ".vtt": "text/vtt; charset=utf-8",
	".mp3": "audio/mpeg", ".m4a": "audio/mp4", ".ogg": "audio/ogg", ".wav": "audio/wav", ".flac": "audio/flac",
	".opus": "audio/ogg", ".aac": "audio/aac",
	".wasm": "application/wasm", ".pdf": "application/pdf", ".zip": "application/zip", ".gz": "application/gzip",
	".glb": "model/gltf-binary", ".gltf": "model/gltf+json", ".yaml": "application/yaml", ".yml": "application/yaml",
}

func contentType(name string) string {
	if t, ok := contentTypes[strings.ToLower(path.Ext(name))]; ok {
		return t
	}
	return "application/octet-stream"
}
