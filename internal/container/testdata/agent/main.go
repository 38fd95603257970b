// Command agent is no more than the first process of a container: tests build it
// without cgo, as the program itself is to be.
package main

import (
	"os"

	"github.com/previewd/previewd/internal/container"
)

func main() { os.Exit(container.Agent()) }
