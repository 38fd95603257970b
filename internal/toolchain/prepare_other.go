//go:build !linux

package toolchain

import (
	"context"
	"errors"
)

// Prepare has nothing to offer here: what it lays out is for Linux namespaces.
func Prepare(context.Context, string) (*Toolchain, error) {
	return nil, errors.New("cannot lay out a toolchain: builds that run programs need Linux")
}
