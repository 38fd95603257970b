package app_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
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

// A page that is opened before its site is built follows the build and then
// shows the site, without a hand on it.
func TestWaitingPageInABrowser(t *testing.T) {
	t.Parallel()
	s := start(t)
	browser := testkit.OpenBrowser(t)
	var source strings.Builder
	for range 30_000 { // a second or two of bundling
		fmt.Fprintf(&source, "export const x%s = (a, b) => { if (a) { return b + 1 } else { return [a, b, {c: a}] } };\n", previewd.NewID()[24:])
	}
	p, err := s.client().CreatePreview(t.Context(), previewd.CreatePreviewRequest{UserID: "u", TemplateFiles: previewd.Files{
		"index.html": []byte(`<!doctype html><title>x</title><h1></h1><script type="module" src="/main.ts"></script>`),
		"main.ts":    []byte(`import * as all from "./big.ts"; document.querySelector("h1").textContent = "built with " + Object.keys(all).length`),
		"big.ts":     []byte(source.String()),
	}})
	require.NoError(t, err)
	browser.Open(t, p.PreviewURL, "Building this site")
	browser.Screenshot(t, "waiting")
	browser.WaitFor(t, "built with 30000")

	failed := s.create(`{"userId":"u","templateFiles":{"index.html":"<script type=module src=/a.ts></script>","a.ts":"let a = ;"}}`)
	s.wait(failed.BuildID)
	browser.Open(t, failed.PreviewURL, "This build failed")
	browser.WaitFor(t, "a.ts")
	browser.Screenshot(t, "failed")
}
