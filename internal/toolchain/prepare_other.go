//go:build !linux

package toolchain

import (
	"context"
	"errors"

	"github.com/previewd/previewd/internal/npm"
)

var errNotLinux = errors.New("cannot lay out a toolchain: builds that run programs need Linux")

// Prepare has nothing to offer here: what it lays out is for Linux namespaces.
func Prepare(context.Context, string) (*Toolchain, error) { return nil, errNotLinux }

// Shrink has nothing to remove here.
func Shrink(string, func() int64) error { return nil }

// Shelf has nothing to offer here either.
type Shelf struct{}

// NewShelf returns an empty shelf.
func NewShelf(*Toolchain, *npm.Mirror) *Shelf { return &Shelf{} }

// Take always fails.
func (*Shelf) Take(context.Context, string, Prove) (*Toolchain, error) { return nil, errNotLinux }
