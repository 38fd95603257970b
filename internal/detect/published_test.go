package detect

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// publishedPackages are the detectors of maintained projects that the table is
// held against. They are fetched when the test runs, read as text, and not kept.
var publishedPackages = []struct{ spec, integrity string }{
	{"@vercel/frameworks@3.34.0", "sha512-1my2ZGGHuj7YY+6xyLiJmA8kSJYs0Wqil5ScnVMqpF3+uiA2qAQjDnpl7bCUpQoTkM7UUxLK65rjko93ZuxS9g=="},  // Apache-2.0
	{"@netlify/build-info@11.3.0", "sha512-xhoPqbfTSroUtFElUR6Wsw0+XlSihtLxvuaNQKv5+JTkvNqpBNIVPdo9drqwhh1eqlUeHJszfCGc1P6950yL0w=="}, // MIT
}

// published is what somebody says of a framework.
type published struct{ packages, command, output string }

// publishedNames are their names of our frameworks, where they know them.
var publishedNames = map[string]struct{ vercel, netlify string }{
	"next": {"nextjs", "next"}, "astro": {"astro", "astro"}, "sveltekit": {"sveltekit-1", "svelte-kit"}, "nuxt": {"nuxtjs", "nuxt"},
	"react-router": {"react-router", "react-router"}, "remix": {"remix", ""}, "solidstart": {"solidstart-1", "solid-start"}, "tanstack-start": {"tanstack-start", "tanstack-start"},
	"gatsby": {"gatsby", "gatsby"}, "docusaurus": {"docusaurus-2", "docusaurus"}, "vitepress": {"vitepress", "vitepress"}, "eleventy": {"eleventy", "eleventy"},
	"angular": {"angular", "angular"}, "vue-cli": {"vue", "vue"}, "create-react-app": {"create-react-app", "react"}, "parcel": {"parcel", "parcel"}, "vite": {"vite", "vite"},
}

const (
	serves   = "they serve it from functions; here it is exported"
	adapters = "they take it through an adapter of their own; here it is what the static form writes"
)

// differences are where the table says something else on purpose.
var differences = map[string]string{
	"next vercel output": serves, "next netlify output": serves,
	"sveltekit vercel output":      adapters,
	"nuxt vercel command":          "nuxt build makes a server",
	"nuxt netlify command":         "nuxt build makes a server",
	"nuxt vercel output":           "Nuxt 2's; since Nuxt 3 it is .output/public, and dist a link to it that is not followed",
	"nuxt netlify output":          "Nuxt 2's; since Nuxt 3 it is .output/public, and dist a link to it that is not followed",
	"react-router vercel packages": "they look into vite.config for @react-router/dev/vite; the package is in package.json as well",
	"react-router vercel output":   "the browser's half of it is what is served",
	"remix vercel command":         "the classic compiler's, which has no form without a server",
	"remix vercel output":          "the classic compiler's, which has no form without a server",
	"solidstart vercel output":     "what is public of it is what is served",
	"solidstart netlify command":   "SolidStart 2's; the table has that of 1, and runs it only when there is no build script",
	"solidstart netlify output":    adapters,
	"tanstack-start vercel output": "what is public of it is what is served",
	"eleventy vercel command":      "npx fetches what is not installed; here nothing is fetched when the build runs",
	"angular netlify command":      "--prod is gone since Angular 14",
}

func TestTableAgreesWithPublishedDetectors(t *testing.T) {
	t.Parallel()
	vercel := vercelFrameworks(fetchPublished(t, publishedPackages[0].spec, publishedPackages[0].integrity))
	netlify := netlifyFrameworks(fetchPublished(t, publishedPackages[1].spec, publishedPackages[1].integrity))
	used := map[string]bool{}
	compared := 0
	for _, f := range frameworks {
		names, known := publishedNames[f.name]
		require.True(t, known, "%s: say what others call it", f.name)
		for who, theirs := range map[string]struct {
			all  map[string]published
			name string
		}{"vercel": {vercel, names.vercel}, "netlify": {netlify, names.netlify}} {
			if theirs.name == "" {
				continue
			}
			p, ok := theirs.all[theirs.name]
			require.True(t, ok, "%s does not know %s", who, theirs.name)
			for what, agree := range map[string]bool{
				"packages": slices.ContainsFunc(f.packages, func(s string) bool { return slices.Contains(strings.Fields(p.packages), s) }),
				"command":  p.command == strings.Join(f.command, " "),
				"output":   path.Clean(p.output) == f.output,
			} {
				compared++
				key := f.name + " " + who + " " + what
				reason, listed := differences[key]
				used[key] = true
				assert.Equal(t, !agree, listed, "%s: ours is %v, %v, %s; theirs is %+v; listed as %q", key, f.packages, f.command, f.output, p, reason)
			}
		}
	}
	for key := range differences {
		assert.True(t, used[key], "%s is no difference of anything", key)
	}
	require.Greater(t, compared, 80)
}

// fetchPublished returns the JavaScript files of a package, by name.
func fetchPublished(t *testing.T, spec, integrity string) map[string]string {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("SKIPPED: there is no npm, so the table is not held against published detectors")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "pack", spec, "--json", "--ignore-scripts", "--prefer-offline", "--fetch-retries=0", "--fetch-timeout=30000", "--pack-destination", dir)
	cmd.Dir, cmd.WaitDelay = dir, time.Second
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		_ = errors.As(err, &exit)
		t.Skipf("SKIPPED: npm cannot fetch %s, so the table is not held against it: %v", spec, err)
	}
	var packed []struct{ Filename, Integrity string }
	require.NoError(t, json.Unmarshal(out, &packed))
	require.Len(t, packed, 1)
	require.Equal(t, integrity, packed[0].Integrity, "%s is not what was looked at when the differences were listed", spec)
	f, err := os.Open(filepath.Join(dir, filepath.Base(packed[0].Filename)))
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		if path.Ext(header.Name) == ".js" {
			raw, err := io.ReadAll(io.LimitReader(r, 1<<20))
			require.NoError(t, err)
			files[header.Name] = string(raw)
		}
	}
}

var (
	vercelSlug    = regexp.MustCompile(`(?m)^    slug: "([^"]+)"`)
	vercelPackage = regexp.MustCompile(`matchPackage: "([^"]+)"|"(@sveltejs)\\\\/kit"`)
	vercelCommand = regexp.MustCompile(`buildCommand: \{[^}]*?value: "([^"]*)"`)
	vercelOutput  = regexp.MustCompile(`outputDirectory: \{[^}]*?value: "([^"]*)"`)

	netlifyID       = regexp.MustCompile(`(?m)^    id = '([^']+)'`)
	netlifyPackages = regexp.MustCompile(`(?s)npmDependencies = \[(.*?)\]`)
	netlifyCommand  = regexp.MustCompile(`(?s)build = \{[^}]*?command: '([^']*)'`)
	netlifyOutput   = regexp.MustCompile(`(?s)build = \{[^}]*?directory: '([^']*)'`)
	quotedText      = regexp.MustCompile(`'([^']+)'`)
)

func firstMatch(re *regexp.Regexp, text string) string {
	if m := re.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// vercelFrameworks reads the one list that the package is.
func vercelFrameworks(files map[string]string) map[string]published {
	source := files["package/dist/frameworks.js"]
	all := map[string]published{}
	starts := vercelSlug.FindAllStringSubmatchIndex(source, -1)
	for i, start := range starts {
		end := len(source)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		text := source[start[0]:end]
		var packages []string
		for _, m := range vercelPackage.FindAllStringSubmatch(text, -1) {
			if m[1] == "" {
				m[1] = m[2] + "/kit"
			}
			packages = append(packages, m[1])
		}
		all[source[start[2]:start[3]]] = published{strings.Join(packages, " "), firstMatch(vercelCommand, text), firstMatch(vercelOutput, text)}
	}
	return all
}

// netlifyFrameworks reads a class a file.
func netlifyFrameworks(files map[string]string) map[string]published {
	all := map[string]published{}
	for name, source := range files {
		if path.Dir(name) != "package/lib/frameworks" || netlifyID.FindString(source) == "" {
			continue
		}
		var packages []string
		for _, m := range quotedText.FindAllStringSubmatch(firstMatch(netlifyPackages, source), -1) {
			packages = append(packages, m[1])
		}
		all[strings.TrimSuffix(path.Base(name), ".js")] = published{strings.Join(packages, " "), firstMatch(netlifyCommand, source), firstMatch(netlifyOutput, source)}
	}
	return all
}
