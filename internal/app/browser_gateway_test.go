package app_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/testkit"
)

// frontEnd is a product's page: a form that posts without a key, and follows what
// it gets. Nothing keeps a user from clicking twice.
const frontEnd = `<!doctype html><meta charset="utf-8"><title>Make a page</title>
<style>body { font: 16px system-ui; margin: 3em auto; max-width: 40em } li { margin: .5em 0 }</style>
<h1>Make a page</h1>
<form id="form"><input name="prompt" value="a page about tea"> <button>Make it</button></form>
<ul id="list"></ul>
<script type="module">
const auth = { Authorization: 'Bearer $TOKEN' }
const list = document.querySelector('#list')
document.querySelector('#form').addEventListener('submit', async (e) => {
  e.preventDefault()
  const prompt = new FormData(e.target).get('prompt')
  const line = list.appendChild(document.createElement('li'))
  const answer = await fetch('/api/projects', {
    method: 'POST', headers: { ...auth, 'Content-Type': 'application/json' }, body: JSON.stringify({ prompt, template: 'landing' }),
  })
  const { project } = await answer.json()
  const show = (status) => { line.textContent = answer.status + ' ' + project.name + ': ' + status + ' at ' + project.previewUrl }
  show(project.status)
  const stream = await fetch('/api/projects/' + project.id + '/events?after=0', { headers: auth })
  const reader = stream.body.pipeThrough(new TextDecoderStream()).getReader()
  for (let text = ''; ;) {
    const { value, done } = await reader.read()
    if (done) return
    text += value
    const frames = text.split('\n\n')
    text = frames.pop()
    for (const frame of frames) {
      const data = frame.match(/^data: (.*)$/m)
      if (!data) continue
      const event = JSON.parse(data[1])
      if (event.data && event.data.status) show(event.data.status)
    }
  }
})
</script>`

// A double click in a browser makes one project, and the page sees it through.
func TestDoubleClickInABrowser(t *testing.T) {
	t.Parallel()
	f := startNear(t)
	token := f.token(ann)
	target, err := url.Parse(f.Config.BaseURL)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/api/", &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(strings.Replace(frontEnd, "$TOKEN", token, 1)))
	})
	mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	product := httptest.NewServer(mux)
	browser := testkit.OpenBrowser(t) // closes its streams before the proxy waits for them
	t.Cleanup(product.CloseClientConnections)

	browser.Open(t, product.URL, "Make a page")
	browser.Click(t, "button", 2)
	browser.WaitFor(t, "deployed at ")
	testkit.Eventually(t, "both lines say so", func() bool {
		browser.WaitFor(t, "200 A page about tea: deployed at http://")
		browser.WaitFor(t, "201 A page about tea: deployed at http://")
		return true
	})
	browser.Screenshot(t, "double-click")
	require.Empty(t, browser.Errors())
	page, err := f.Worker.ListProjects(t.Context(), previewd.ProjectFilter{})
	require.NoError(t, err)
	require.Len(t, page.Projects, 1, "one project")
	require.Equal(t, ann, page.Projects[0].UserID)
	intents, err := f.Users.ListIntents(t.Context(), previewd.IntentConfirmed, "~", 10)
	require.NoError(t, err)
	require.Len(t, intents, 1, "one intent")
	browser.Open(t, page.Projects[0].PreviewURL, "Know the tide")

	for _, path := range []string{"/api/projects", "/api/events"} {
		r := f.ask(token, http.MethodGet, path, "", "Origin", "https://elsewhere.example")
		require.Empty(t, r.header.Get("Access-Control-Allow-Origin"), "pages of other origins get nothing")
	}
}
