//go:build !linux

package sandbox

import "syscall"

func setApart(*syscall.SysProcAttr) {}

func refusesNamespaces(error) bool { return false }

// bounds are none here.
type bounds struct{}

func newBounds(*Limits) bounds { return bounds{} }

func (bounds) add(int) error { return nil }

func (bounds) outOfMemory() bool { return false }

func (bounds) remove() {}
