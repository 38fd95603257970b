package preview

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/previewd/previewd"
)

// siteCache remembers what hosts show, for a short while or until told to
// forget. What shows no version yet is never remembered: the first version must
// be seen the moment it is there.
type siteCache struct {
	fresh time.Duration
	load  func(ctx context.Context, label string) (*site, error)

	mu      sync.RWMutex
	sites   map[string]cachedSite
	files   int    // of all sites
	changes uint64 // counts forget: what was read before one is not stored after it
}

type cachedSite struct {
	site  *site
	until time.Time
}

// What the cache may hold: hosts, and files of their sites together.
const maxSites, maxSiteFiles = 10_000, 200_000

func newSiteCache(fresh time.Duration, load func(context.Context, string) (*site, error)) *siteCache {
	return &siteCache{fresh: fresh, load: load, sites: map[string]cachedSite{}}
}

func (c *siteCache) find(ctx context.Context, label string) (*site, error) {
	c.mu.RLock()
	cached, ok := c.sites[label]
	changes := c.changes
	c.mu.RUnlock()
	if ok && time.Now().Before(cached.until) {
		return cached.site, nil
	}
	now := time.Now()
	found, err := c.load(ctx, label)
	if err != nil || found.files == nil {
		return found, err
	}
	if ok && cached.site.Manifest == found.Manifest && cached.site.BuildID == found.BuildID {
		found = cached.site // keeps what hangs on it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes == changes {
		if len(c.sites) >= maxSites || c.files > maxSiteFiles {
			clear(c.sites)
			c.files = 0
		}
		if old, ok := c.sites[label]; ok {
			c.files -= len(old.site.files)
		}
		c.files += len(found.files)
		c.sites[label] = cachedSite{found, now.Add(c.fresh)}
	}
	return found, nil
}

func (c *siteCache) forget(label string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	if cached, ok := c.sites[label]; ok {
		c.files -= len(cached.site.files)
		delete(c.sites, label)
	}
}

// forgetProject forgets all that belongs to a project: its own host, and those of
// its builds.
func (c *siteCache) forgetProject(projectID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	for label, cached := range c.sites {
		if cached.site.ProjectID == projectID {
			c.files -= len(cached.site.files)
			delete(c.sites, label)
		}
	}
}

// blobCache keeps file contents in memory up to a number of bytes. What was
// not asked for since the hand last came by goes first (the CLOCK algorithm):
// a hit costs one atomic store and no writer's lock.
type blobCache struct {
	limit int64

	mu    sync.RWMutex
	size  int64
	blobs map[previewd.Digest]*cachedBlob
	ring  []*cachedBlob
	hand  int
}

type cachedBlob struct {
	digest  previewd.Digest
	content []byte
	used    atomic.Bool
}

func newBlobCache(limit int64) *blobCache {
	return &blobCache{limit: limit, blobs: map[previewd.Digest]*cachedBlob{}}
}

func (c *blobCache) find(digest previewd.Digest) ([]byte, bool) {
	c.mu.RLock()
	blob := c.blobs[digest]
	c.mu.RUnlock()
	if blob == nil {
		return nil, false
	}
	if !blob.used.Load() {
		blob.used.Store(true)
	}
	return blob.content, true
}

func (c *blobCache) add(digest previewd.Digest, content []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blobs[digest] != nil {
		return
	}
	for c.size+int64(len(content)) > c.limit && len(c.ring) > 0 {
		c.evict()
	}
	blob := &cachedBlob{digest: digest, content: content}
	c.blobs[digest] = blob
	c.ring = append(c.ring, blob)
	c.size += int64(len(content))
}

// evict moves the hand on to the first blob that was not used and drops it.
func (c *blobCache) evict() {
	for {
		c.hand %= len(c.ring)
		blob := c.ring[c.hand]
		if blob.used.Swap(false) {
			c.hand++
			continue
		}
		last := len(c.ring) - 1
		c.ring[c.hand] = c.ring[last]
		c.ring = c.ring[:last]
		delete(c.blobs, blob.digest)
		c.size -= int64(len(blob.content))
		return
	}
}
