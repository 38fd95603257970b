//go:build mutate

package fault

import "os"

var off = Mechanism(os.Getenv("PREVIEWD_MUTATE"))

// Off reports whether PREVIEWD_MUTATE names the mechanism.
func Off(m Mechanism) bool { return m == off }
