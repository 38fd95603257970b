package runner

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pkg is a package of a registry that a test makes.
type pkg struct {
	manifest map[string]any
	files    map[string]string
}

// packages are what builds of the tests install: what a site is made with, and
// what wants to run a script when it is installed.
var packages = map[string]pkg{
	"maker": {
		map[string]any{"bin": map[string]any{"maker": "bin.js"}},
		map[string]string{"bin.js": `#!/usr/bin/env node
const fs = require('fs');
fs.mkdirSync('dist', {recursive: true});
fs.writeFileSync('dist/index.html', '<h1>' + fs.readFileSync('page.txt', 'utf8') + require('./say.js') + (process.env.VITE_NAME || '') + '</h1>');
`, "say.js": `module.exports = '!'`},
	},
	"vite": {
		map[string]any{"bin": map[string]any{"vite": "bin.js"}},
		map[string]string{"bin.js": `#!/usr/bin/env node
const fs = require('fs');
fs.mkdirSync('dist', {recursive: true});
fs.writeFileSync('dist/index.html', '<h1>by vite</h1>');
`},
	},
	"parcel": {map[string]any{"bin": map[string]any{"parcel": "bin.js"}}, map[string]string{"bin.js": "#!/bin/sh\nexec sh build.sh\n"}},
	"tea": {
		map[string]any{"type": "module", "exports": "./index.js"},
		map[string]string{"index.js": `import leaf from "./leaf.js"; export const tea = "green " + leaf`, "leaf.js": `export default "leaf"`},
	},
	"young": {map[string]any{"engines": map[string]any{"node": ">=99"}}, nil},
	"picky": {map[string]any{"peerDependencies": map[string]any{"maker": "^2.0.0"}}, nil},
	"pnpm":  {map[string]any{"bin": map[string]any{"pnpm": "bin.js"}}, map[string]string{"bin.js": fakeManager}},
	"native": {
		map[string]any{"scripts": map[string]any{"install": "node make.js"}},
		map[string]string{"make.js": `require('fs').writeFileSync(__dirname + '/made.txt', 'made')`},
	},
}

func tarball(t testing.TB, name string, p pkg) []byte {
	t.Helper()
	manifest := map[string]any{"name": name, "version": "1.0.0"}
	for key, value := range p.manifest {
		manifest[key] = value
	}
	raw, err := json.Marshal(manifest)
	require.NoError(t, err)
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	w := tar.NewWriter(zipped)
	files := map[string]string{"package.json": string(raw)}
	for file, text := range p.files {
		files[file] = text
	}
	for file, text := range files {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: "package/" + file, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg}))
		_, err := io.WriteString(w, text)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, zipped.Close())
	return packed.Bytes()
}

func integrity(tarball []byte) string {
	sum := sha512.Sum512(tarball)
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

// registry serves the packages like npm's.
type registry struct {
	url      string
	tarballs map[string][]byte
}

func startRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{tarballs: map[string][]byte{}}
	for name, p := range packages {
		r.tarballs[name] = tarball(t, name, p)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		name, file, isTarball := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/-/")
		packed, ok := r.tarballs[name]
		switch {
		case !ok:
			http.Error(w, `{"error":"Not found"}`, http.StatusNotFound)
		case isTarball && file == name+"-1.0.0.tgz":
			_, _ = w.Write(packed)
		default:
			w.Header().Set("Content-Type", "application/json")
			manifest := map[string]any{"name": name, "version": "1.0.0", "dist": map[string]any{
				"tarball": r.url + "/" + name + "/-/" + name + "-1.0.0.tgz", "integrity": integrity(packed),
			}}
			for key, value := range packages[name].manifest {
				manifest[key] = value
			}
			_, hasScript := manifest["scripts"]
			manifest["hasInstallScript"] = hasScript
			versions := map[string]any{"1.0.0": manifest}
			if name == "maker" { // one that packages can want, and that nobody gets
				next := maps.Clone(manifest)
				next["version"] = "2.0.0"
				versions["2.0.0"] = next
			}
			_ = json.NewEncoder(w).Encode(map[string]any{
				"name": name, "dist-tags": map[string]any{"latest": "1.0.0"}, "versions": versions,
				"time": map[string]any{"1.0.0": "2020-01-01T00:00:00.000Z", "2.0.0": "2020-01-02T00:00:00.000Z"},
			})
		}
	}))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

// lockfile returns what npm writes for these packages.
func (r *registry) lockfile(manifest map[string]any, names ...string) string {
	entries := map[string]any{"": manifest}
	for _, name := range names {
		entry := map[string]any{"version": "1.0.0", "resolved": "https://registry.npmjs.org/" + name + "/-/" + name + "-1.0.0.tgz", "integrity": integrity(r.tarballs[name])}
		for key, value := range packages[name].manifest {
			switch key {
			case "bin":
				entry[key] = value
			case "scripts":
				entry["hasInstallScript"] = true
			}
		}
		entries["node_modules/"+name] = entry
	}
	raw, _ := json.MarshalIndent(map[string]any{"name": "x", "lockfileVersion": 3, "requires": true, "packages": entries}, "", "  ")
	return string(raw)
}

// tree returns a tree that is made with these packages by this command.
func (r *registry) tree(build string, names ...string) map[string]string {
	dependencies := map[string]any{}
	for _, name := range names {
		dependencies[name] = "1.0.0"
	}
	manifest := map[string]any{"name": "x", "version": "1.0.0", "scripts": map[string]any{"build": build}, "dependencies": dependencies}
	raw, _ := json.Marshal(manifest)
	return map[string]string{
		"package.json": string(raw), "page.txt": "tea",
		"package-lock.json": r.lockfile(map[string]any{"name": "x", "version": "1.0.0", "dependencies": dependencies}, names...),
	}
}
