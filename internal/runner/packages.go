package runner

import (
	"embed"
	"path"
	"strings"
)

// The npm packages that previewd brings along, as published, without source
// maps. scripts/update-packages fetches them.
//
//go:embed packages
var packageFS embed.FS

// embedded maps what source may import without installing anything to the
// module that it gets. React is preact's compatible form of it.
var embedded = map[string]string{
	"preact":                 "preact/dist/preact.mjs",
	"preact/hooks":           "preact/hooks/dist/hooks.mjs",
	"preact/compat":          "preact/compat/dist/compat.mjs",
	"preact/compat/client":   "preact/compat/client.mjs",
	"preact/jsx-runtime":     "preact/jsx-runtime/dist/jsxRuntime.mjs",
	"preact/jsx-dev-runtime": "preact/jsx-runtime/dist/jsxRuntime.mjs",
	"react":                  "preact/compat/dist/compat.mjs",
	"react/jsx-runtime":      "preact/jsx-runtime/dist/jsxRuntime.mjs",
	"react/jsx-dev-runtime":  "preact/jsx-runtime/dist/jsxRuntime.mjs",
	"react-dom":              "preact/compat/dist/compat.mjs",
	"react-dom/client":       "preact/compat/client.mjs",
}

// packageName returns the package that a bare import is from: "a" of "a/b",
// "@s/a" of "@s/a/b".
func packageName(spec string) string {
	first, rest, _ := strings.Cut(spec, "/")
	if strings.HasPrefix(first, "@") {
		second, _, _ := strings.Cut(rest, "/")
		return path.Join(first, second)
	}
	return first
}
