package app

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/previewd/previewd"
)

// disk keeps room on the file systems that a server writes to: new builds are
// refused, and those that wait are left waiting, before everything else fails.
type disk struct {
	folders []string
	cached  string                    // the folder of what is only kept to be fast
	least   int64                     // bytes that stay free
	shrink  func(wanted func() int64) // drops of that for as long as bytes are wanted
	log     *slog.Logger
	free    func(folder string) (bytes int64, known bool)

	mu      sync.Mutex
	looked  time.Time
	missing int64 // bytes that there are too few; 0 when there is room
}

// lookEvery is how long what was found out about the disk is believed.
const lookEvery = time.Second

// fullRetry is when a client may try again: space is made by people.
const fullRetry = 30 * time.Second

// room returns CodeDiskFull when there is none for a new build.
func (d *disk) room() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.looked) >= lookEvery {
		d.look()
	}
	if d.missing <= 0 {
		return nil
	}
	return &previewd.Error{
		Code:    previewd.CodeDiskFull,
		Message: "The server's disk is nearly full, so it takes no new builds: try again later. What is built is still shown.", RetryAfter: fullRetry,
	}
}

// makeRoom is room for who is about to build: it empties caches first, from twice
// the bound on, so that builds do not stop for what could be fetched again.
func (d *disk) makeRoom() error {
	if d.wanted() > 0 {
		d.shrink(d.wanted)
	}
	d.mu.Lock()
	d.look()
	d.mu.Unlock()
	return d.room()
}

// wanted is how many bytes there are too few where caches are; those of other file
// systems no cache gives.
func (d *disk) wanted() int64 {
	free, known := d.free(d.cached)
	if !known {
		return 0
	}
	return 2*d.least - free
}

// look is called with mu held.
func (d *disk) look() {
	was := d.missing
	d.looked, d.missing = time.Now(), -1<<62
	for _, folder := range d.folders {
		if free, known := d.free(folder); known {
			d.missing = max(d.missing, d.least-free)
		}
	}
	switch {
	case d.missing > 0 && was <= 0:
		d.log.Warn("the disk is nearly full: no new builds are taken", "missing", fmt.Sprintf("%d MB", d.missing>>20))
	case d.missing <= 0 && was > 0:
		d.log.Info("there is room on the disk again")
	}
}
