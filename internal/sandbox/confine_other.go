//go:build !linux

package sandbox

import "syscall"

func processGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func killGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }

// Confine has nothing to offer here but the process itself.
func Confine(Policy) (level string, err error) { return LevelProcess, nil }
