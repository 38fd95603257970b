package app_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/boxtest"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/testkit"
)

// What a person sees: each template, with the prompt as text and no error.
func TestTemplatesInABrowser(t *testing.T) {
	t.Parallel()
	s := start(t)
	browser := testkit.OpenBrowser(t)
	for template, text := range map[string]string{
		"landing": "Know the tide from across the room.", "app": "Tune in to one thing.", "site": "Small buildings, drawn slowly.",
	} {
		p := s.create(fmt.Sprintf(`{"userId":"u","prompt":"made for <b>Ann</b>","metadata":{"template":%q}}`, template))
		s.wait(p.BuildID)
		browser.Open(t, p.PreviewURL, text)
		browser.WaitFor(t, "made for <b>Ann</b>")
		browser.Screenshot(t, template)
		require.Empty(t, browser.Errors(), template)
	}
	site := s.projectOf("site").PreviewURL
	browser.Open(t, site+"work/net-loft/", "Net Loft")
	browser.Open(t, site+"no/such/page", "This room was never built.")
	require.Len(t, browser.Errors(), 1, "the 404 itself: %v", browser.Errors())
	browser.Open(t, s.Config.BaseURL+"/docs", "/v1/create-preview-for-new-project")
	browser.Screenshot(t, "docs")
}

// heldPackage is a registry with one package, a "vite", that comes when it is
// released.
type heldPackage struct {
	url, lockfile string
	asked         atomic.Bool
	release       func()
}

func holdPackage(t *testing.T) *heldPackage {
	t.Helper()
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	_, err := io.Copy(zipped, boxtest.Tar(t, map[string]string{
		"package/package.json": `{"name":"vite","version":"1.0.0","type":"module","exports":"./index.js"}`,
		"package/index.js":     `export const text = "built with what was held"`,
	}))
	require.NoError(t, err)
	require.NoError(t, zipped.Close())
	released := make(chan struct{})
	held := &heldPackage{release: sync.OnceFunc(func() { close(released) })}
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		held.asked.Store(true)
		select {
		case <-released:
			_, _ = w.Write(packed.Bytes())
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(registry.Close)
	sum := sha512.Sum512(packed.Bytes())
	held.url, held.lockfile = registry.URL, fmt.Sprintf(`{"lockfileVersion":3,"packages":{"":{"dependencies":{"vite":"1.0.0"}},"node_modules/vite":
		{"version":"1.0.0","resolved":"https://registry.npmjs.org/vite/-/vite-1.0.0.tgz","integrity":"sha512-%s"}}}`, base64.StdEncoding.EncodeToString(sum[:]))
	return held
}

// A page that is opened before its site is built follows the build and then
// shows the site, without a hand on it.
func TestWaitingPageInABrowser(t *testing.T) {
	t.Parallel()
	held := holdPackage(t)
	s := startWith(t, config.Config{NPMRegistry: held.url})
	t.Cleanup(held.release)
	browser := testkit.OpenBrowser(t)
	p, err := s.client().CreatePreview(t.Context(), previewd.CreatePreviewRequest{UserID: "u", TemplateFiles: previewd.Files{
		"index.html":        []byte(`<!doctype html><title>x</title><h1></h1><script type="module" src="/main.ts"></script>`),
		"main.ts":           []byte(`import {text} from "vite"; document.querySelector("h1").textContent = text`),
		"package.json":      []byte(`{"scripts":{"build":"vite build"},"dependencies":{"vite":"1.0.0"}}`),
		"package-lock.json": []byte(held.lockfile),
	}})
	require.NoError(t, err)
	testkit.Eventually(t, "its package is asked for", func() bool {
		b, err := s.client().FindBuild(t.Context(), p.BuildID, 0)
		require.NoError(t, err)
		if b.Failure != nil && b.Failure.Code == previewd.FailRunnerUnavailable {
			t.Skipf("SKIPPED: %s %s", b.Failure.Message, b.Failure.Hint)
		}
		return held.asked.Load()
	})
	browser.Open(t, p.PreviewURL, "Building this site")
	browser.Screenshot(t, "waiting")
	held.release()
	browser.WaitFor(t, "built with what was held")
}

// A page of a build that has failed says why, and where.
func TestFailedPageInABrowser(t *testing.T) {
	t.Parallel()
	s := start(t)
	browser := testkit.OpenBrowser(t)
	failed := s.create(`{"userId":"u","templateFiles":{"index.html":"<script type=module src=/a.ts></script>","a.ts":"let a = ;"}}`)
	s.wait(failed.BuildID)
	browser.Open(t, failed.PreviewURL, "This build failed")
	browser.WaitFor(t, "a.ts")
	browser.Screenshot(t, "failed")
}
