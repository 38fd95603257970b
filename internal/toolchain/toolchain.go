// Package toolchain lays out the root file system that builds see: copies of
// Node.js, npm and small programs of this machine, and nothing else of it. They
// are copies because what a build can do to a file's pages in memory, through a
// fault of the kernel, must not reach the files that the host runs. Other
// versions of Node.js come from the registry, and no host ever runs them.
package toolchain

import (
	"context"
	"errors"
	"fmt"

	"github.com/gofrs/flock"
)

// ErrMissing says that what a toolchain is made of is not installed.
var ErrMissing = errors.New("cannot find")

// ErrUnreadable says that a range of versions is none.
var ErrUnreadable = errors.New("cannot read the range of versions")

// NoneError says that there is no Node.js, or none here, of a version that is wanted.
type NoneError struct {
	Wanted  string
	Machine string // version of this machine's
	Why     string // reads on after "but"
}

func (e *NoneError) Error() string {
	return fmt.Sprintf("cannot get Node.js %s: this machine has %s, and %s", e.Wanted, e.Machine, e.Why)
}

// Toolchain is a root file system with what builds run: Node.js, npm, a shell
// and the usual small programs. No file in it is setuid and no link leads out.
type Toolchain struct {
	Root string // folder: bin, lib, lib64, usr, etc
	Node string // version, such as 20.20.2
	NPM  string // version
	Why  string // nobody has a newer one, where that is wanted; else ""
	use  *flock.Flock
}

// Release says that it is not used any more: it may be removed from now on.
func (t *Toolchain) Release() {
	if t != nil && t.use != nil {
		t.use.Close()
	}
}

// Prove runs Node.js and npm of a root where they can do no harm, and returns the
// versions that they tell. It returns a RefusedError when they do not run.
type Prove func(ctx context.Context, root string) (node, npm string, err error)

// RefusedError is what a program says that does not run.
type RefusedError struct{ Output string }

func (e *RefusedError) Error() string { return e.Output }
