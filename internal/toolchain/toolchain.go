// Package toolchain lays out the root file system that builds see: copies of
// Node.js, npm and small programs of this machine, and nothing else of it. They
// are copies because what a build can do to a file's pages in memory, through a
// fault of the kernel, must not reach the files that the host runs.
package toolchain

import "errors"

// ErrMissing says that what a toolchain is made of is not installed.
var ErrMissing = errors.New("cannot find")

// Toolchain is a root file system with what builds run: Node.js, npm, a shell
// and the usual small programs. No file in it is setuid and no link leads out.
type Toolchain struct {
	Root string // folder: bin, lib, lib64, usr, etc
	Node string // version, such as 20.20.2
	NPM  string // version
}
