package sandbox

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// setApart gives a child namespaces of its own: no network, and no shared memory
// but its own. Files see in it the user that it is; it sees itself as one that is not
// root, so that it has no capabilities. The numbers of processes are those that /proc
// has: what confines a program built with cgo looks for its threads there.
func setApart(attr *syscall.SysProcAttr) {
	attr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: DefaultUID, HostID: os.Geteuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: DefaultUID, HostID: os.Getegid(), Size: 1}}
}

// refusesNamespaces reports whether a start has failed for want of them.
func refusesNamespaces(err error) bool {
	for _, refusal := range []error{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EINVAL, unix.EUSERS} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// boundsOf returns a group with limits, or none where there is none to be had.
func boundsOf(limits *Limits) *group {
	if limits == nil {
		return nil
	}
	g, _ := newGroup(*limits)
	return g
}
