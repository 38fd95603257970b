//go:build linux

package container_test

const roleOwner = "owner-of-a-box" // of a test's child

func ownBox([]string) {}
