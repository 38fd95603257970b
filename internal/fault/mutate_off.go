//go:build !mutate

package fault

// Off is false in a normal build.
func Off(Mechanism) bool { return false }
