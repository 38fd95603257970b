// Package npm is a read-only mirror of an npm registry: the only network of
// builds that run strangers' code. Nothing can be published, asked or told
// through it, and it shows each build nothing but packages.
package npm

import (
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/previewd/previewd/internal/telemetry"
)

// Config is everything a Mirror needs. A zero field takes the default its comment names.
type Config struct {
	Registry string        // URL of the registry that it mirrors; default https://registry.npmjs.org
	Dir      string        // of the cache; created if missing; for this mirror alone
	MaxBytes int64         // of the cache; default 4 GiB; least recently used first
	Fresh    time.Duration // how long a packument is used without asking; default 10 min
	MinAge   time.Duration // versions younger than this do not exist; default 0
	Block    []string      // package names that do not exist
	Client   *http.Client  // default one with sane timeouts, which follows no redirect to another host
	Log      *slog.Logger  // default slog.Default()
}

const (
	defaultRegistry = "https://registry.npmjs.org"
	defaultBytes    = 4 << 30
	defaultFresh    = 10 * time.Minute

	maxTarball   = 512 << 20
	maxPackument = 256 << 20
	// maxParsing bounds memory: a parsed packument takes several times its size.
	maxParsing = 2
)

// The two forms of a packument, by what a client accepts.
const (
	full        = "application/json"
	abbreviated = "application/vnd.npm.install-v1+json"
)

// Mirror is what the views of all builds share: the cache and the way to the registry.
type Mirror struct {
	cfg      Config
	registry registry
	cache    *cache
	flight   singleflight.Group
	parsing  chan struct{}
}

// NewMirror returns a mirror on the cache in cfg.Dir. It removes what a crash
// left half written there.
func NewMirror(cfg Config) (*Mirror, error) {
	if cfg.Registry == "" {
		cfg.Registry = defaultRegistry
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultBytes
	}
	if cfg.Fresh == 0 {
		cfg.Fresh = defaultFresh
	}
	if cfg.Client == nil {
		cfg.Client = newClient()
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	base, err := url.Parse(strings.TrimRight(cfg.Registry, "/"))
	if err != nil {
		return nil, fmt.Errorf("cannot use the registry's URL: %w", err)
	}
	if (base.Scheme != "https" && base.Scheme != "http") || base.Host == "" || base.RawQuery != "" {
		return nil, fmt.Errorf("cannot use the registry's URL %s: it must be http(s)://host/path", base.Redacted())
	}
	disk, err := openCache(cfg.Dir, cfg.MaxBytes)
	if err != nil {
		return nil, err
	}
	return &Mirror{cfg: cfg, registry: registry{base, cfg.Client}, cache: disk, parsing: make(chan struct{}, maxParsing)}, nil
}

// Shrink drops at least so many bytes of what is cached, if there is that much:
// what was not used for longest.
func (m *Mirror) Shrink(bytes int64) error { return m.cache.shrink(bytes) }

// Registry returns the URL of the registry that is mirrored.
func (m *Mirror) Registry() string { return m.cfg.Registry }

// key is the cache's for a thing of this registry.
func (m *Mirror) key(parts ...string) string {
	return cacheKey(append(parts, m.registry.base.String())...)
}

// Rules tells which packages do not exist here although the registry has them: two
// mirrors of equal rules serve the same.
func (m *Mirror) Rules() string { return fmt.Sprintf("%s %q", m.cfg.MinAge, m.cfg.Block) }

// youngest is the latest time at which what exists may have been published.
func (m *Mirror) youngest() time.Time { return time.Now().Add(-m.cfg.MinAge) }

// packument returns a package's document in one of its forms. The caller closes it.
func (m *Mirror) packument(name, form string) (*entry, error) {
	if m.cfg.MinAge > 0 {
		form = full // only that one says when a version was published
	}
	key := m.key("packument", form, m.cfg.MinAge.String(), name)
	kept, err := m.cache.open(key)
	if err != nil || time.Since(kept.used) >= m.cfg.Fresh {
		kept.close()
		// Do, not DoChan: who has gone away still counts among its build's requests.
		refresh := func() (any, error) {
			if m.cache.has(key, func(e *entry) bool { return time.Since(e.used) < m.cfg.Fresh }) {
				return nil, nil // another has asked meanwhile
			}
			return nil, m.refresh(key, name, form)
		}
		if _, err, _ := m.flight.Do(key, refresh); err != nil {
			return nil, err
		}
		if kept, err = m.cache.open(key); err != nil {
			return nil, err
		}
	}
	if kept.Shown == 0 && len(kept.Young) > 0 {
		kept.close()
		return nil, errTooYoung
	}
	return kept, nil
}

// refresh asks the registry for a packument. One that is kept outlives the
// registry's failures, and is then good for as long as one that was confirmed,
// so that an outage does not make every request wait.
func (m *Mirror) refresh(key, name, form string) error {
	ask := request{path: "/" + strings.Replace(name, "/", "%2f", 1), accept: form, limit: maxPackument}
	kept, missing := m.cache.open(key)
	if missing == nil {
		defer kept.close()
		ask.etag = kept.ETag
	}
	err := m.loadPackument(key, ask)
	switch {
	case errors.Is(err, errNotModified):
		m.cache.touch(key)
		return nil
	case errors.Is(err, errNotFound):
		m.cache.remove(key)
	case err != nil && missing == nil:
		m.cfg.Log.Warn("an old packument is used", telemetry.Path, ask.path, telemetry.Error, err)
		m.cache.touch(key)
		return nil
	}
	return err
}

func (m *Mirror) loadPackument(key string, ask request) error {
	raw, err := m.cache.create()
	if err != nil {
		return err
	}
	defer m.cache.discard(raw)
	answer, err := m.registry.get(ask, raw)
	if err != nil {
		return err
	}
	m.parsing <- struct{}{}
	defer func() { <-m.parsing }()
	text, err := os.ReadFile(raw.Name())
	if err != nil {
		return err
	}
	doc, err := rewrite(text, m.registry.base.EscapedPath(), m.shown)
	if err != nil {
		return fmt.Errorf("cannot read the packument %s: %w", ask.path, err)
	}
	about := about{Type: answer.Get("Content-Type"), Shown: doc.shown, Young: doc.young}
	if len(doc.young) == 0 {
		about.ETag = answer.Get("ETag") // what hides versions is asked for anew, whole: they grow older
	}
	kept, err := m.cache.create()
	if err != nil {
		return err
	}
	defer m.cache.discard(kept)
	if _, err := kept.Write(doc.text); err != nil {
		return err
	}
	return m.cache.commit(key, kept, about)
}

// shown reports whether a version that was published at a time is old enough.
// One whose time is not known is not.
func (m *Mirror) shown(published time.Time) bool {
	return m.cfg.MinAge <= 0 || (!published.IsZero() && !published.After(m.youngest()))
}

// parse reads a kept packument, with its tarballs under base.
func (m *Mirror) parse(e *entry, base string) (object, error) {
	m.parsing <- struct{}{}
	defer func() { <-m.parsing }()
	text, err := io.ReadAll(e.body)
	if err != nil {
		return nil, err
	}
	return parse(insertBase(text, base))
}

// tarball returns a tarball, and whether it was in the cache. The caller closes it.
func (m *Mirror) tarball(t target) (kept *entry, cached bool, err error) {
	key := m.key("tarball", t.tarball())
	if kept, err = m.cache.open(key); err == nil && !kept.Since.After(m.youngest()) {
		m.cache.touch(key)
		return kept, true, nil
	}
	kept.close()
	load := func() (any, error) {
		if m.cache.has(key, func(e *entry) bool { return !e.Since.After(m.youngest()) }) {
			return nil, nil // another has loaded it meanwhile
		}
		return nil, m.loadTarball(key, t)
	}
	if _, err, _ = m.flight.Do(key, load); err != nil {
		return nil, false, err
	}
	kept, err = m.cache.open(key)
	return kept, false, err
}

func (m *Mirror) loadTarball(key string, t target) error {
	want, err := m.integrity(t)
	if err != nil {
		return err
	}
	file, err := m.cache.create()
	if err != nil {
		return err
	}
	defer m.cache.discard(file)
	hash, magic := sha512.New(), &prefix{}
	answer, err := m.registry.get(request{path: t.tarball(), limit: maxTarball}, io.MultiWriter(file, hash, magic))
	if err != nil {
		return err
	}
	if string(magic.kept) != gzipMagic {
		return fmt.Errorf("%s is no tarball", t.tarball()) // the page of a proxy that wants a login, say
	}
	got := "sha512-" + base64.StdEncoding.EncodeToString(hash.Sum(nil))
	if len(want) > 0 && !slices.Contains(want, got) {
		return fmt.Errorf("%s is %s, but its packument says %s", t.tarball(), got, strings.Join(want, " "))
	}
	return m.cache.commit(key, file, about{Type: answer.Get("Content-Type"), Integrity: got, Since: m.youngest()})
}

const gzipMagic = "\x1f\x8b" // RFC 1952 §2.3.1

// prefix keeps the first two bytes that are written to it.
type prefix struct{ kept []byte }

func (p *prefix) Write(b []byte) (int, error) {
	p.kept = append(p.kept, b[:min(len(b), 2-len(p.kept))]...)
	return len(b), nil
}

// integrity returns the sha512s that the known packument names for a tarball. With
// a MinAge the packument must be had, for what it does not show does not exist.
func (m *Mirror) integrity(t target) ([]string, error) {
	if m.cfg.MinAge > 0 {
		kept, err := m.packument(t.name, full)
		if err != nil {
			return nil, err
		}
		defer kept.close()
		if slices.Contains(kept.Young, t.tarball()) {
			return nil, errTooYoung
		}
		doc, err := m.parse(kept, "")
		if err != nil {
			return nil, err
		}
		dist, err := doc.dist(t.tarball())
		if err == nil && dist == nil {
			err = errNotFound
		}
		return dist.sha512(), err
	}
	for _, form := range []string{abbreviated, full} {
		kept, err := m.cache.open(m.key("packument", form, m.cfg.MinAge.String(), t.name))
		if err != nil {
			continue
		}
		doc, err := m.parse(kept, "")
		kept.close()
		if err != nil {
			return nil, err
		}
		if dist, err := doc.dist(t.tarball()); err != nil || dist != nil {
			return dist.sha512(), err
		}
	}
	return nil, nil
}

// manifest returns what a packument says of a version, or of the one that a tag names.
func (m *Mirror) manifest(t target, base string) ([]byte, error) {
	kept, err := m.packument(t.name, full)
	if err != nil {
		return nil, err
	}
	defer kept.close()
	if slices.Contains(kept.Young, t.version) {
		return nil, errTooYoung
	}
	doc, err := m.parse(kept, base)
	if err != nil {
		return nil, err
	}
	return doc.version(t.version)
}
