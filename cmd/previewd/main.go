// Command previewd creates projects, builds them and serves their previews.
package main

import (
	"os"

	"github.com/previewd/previewd/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], cli.Standard())) }
