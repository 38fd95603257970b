package testkit

import (
	"context"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// Browser is a tab of headless Chromium.
type Browser struct {
	Context context.Context
	mu      sync.Mutex
	errors  []string
}

// OpenBrowser starts Chromium for one test. Without one the test is skipped,
// and says so: CI installs it.
func OpenBrowser(tb testing.TB) *Browser {
	tb.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			program = found
			break
		}
	}
	if program == "" {
		tb.Skip("NOT TESTED: no Chromium on this machine; install the package chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program), chromedp.UserDataDir(filepath.Join(tb.TempDir(), "chromium")),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		// Chromium refuses its own sandbox to root.
		chromedp.Flag("no-sandbox", os.Getuid() == 0))
	allocator, stopProcess := chromedp.NewExecAllocator(context.Background(), options...)
	tab, closeTab := chromedp.NewContext(allocator)
	ctx, cancel := context.WithTimeout(tab, 3*time.Minute)
	tb.Cleanup(func() {
		cancel()
		closeTab()
		stopProcess()
	})
	b := &Browser{Context: ctx}
	go b.listen(ctx, chromedp.Console(ctx))
	require.NoError(tb, chromedp.Do(ctx))
	return b
}

// listen gathers what the console reports as an error, until the tab closes.
func (b *Browser) listen(ctx context.Context, console iter.Seq2[chromedp.ConsoleMessage, error]) {
	for message, err := range console {
		if err != nil || ctx.Err() != nil {
			return
		}
		// Browsers ask for an icon that no page has named; some pages have none.
		if (message.Type == chromedp.ConsoleError || message.IsException()) && !strings.HasSuffix(message.URL, "/favicon.ico") {
			b.mu.Lock()
			b.errors = append(b.errors, message.String()+" "+message.URL)
			b.mu.Unlock()
		}
	}
}

// Errors returns what pages have said went wrong.
func (b *Browser) Errors() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.errors...)
}

// Open loads a page and waits until it shows a text.
func (b *Browser) Open(tb testing.TB, url, text string) {
	tb.Helper()
	require.NoError(tb, chromedp.Do(b.Context, chromedp.Navigate(url)))
	b.WaitFor(tb, text)
}

// WaitFor waits until the page shows a text.
func (b *Browser) WaitFor(tb testing.TB, text string) {
	tb.Helper()
	var shown string
	defer func() {
		if tb.Failed() {
			tb.Logf("the page shows %q; errors: %q", shown, b.Errors())
		}
	}()
	Eventually(tb, "the page shows "+text, func() bool {
		now, err := chromedp.Run(b.Context, chromedp.Evaluate[string](`document.body.innerText`))
		if err == nil {
			shown = now
		}
		return err == nil && strings.Contains(now, text)
	})
}

// Picture returns a picture of the page, as PNG.
func (b *Browser) Picture(tb testing.TB) []byte {
	tb.Helper()
	picture, err := chromedp.Run(b.Context, chromedp.FullScreenshot(100))
	require.NoError(tb, err)
	return picture
}

// Click clicks on what a selector finds, so many times at once.
func (b *Browser) Click(tb testing.TB, selector string, times int) {
	tb.Helper()
	found, err := chromedp.Run(b.Context, chromedp.Evaluate[bool](`(() => { const e = document.querySelector(`+strconv.Quote(selector)+`)
		for (let i = 0; e && i < `+strconv.Itoa(times)+`; i++) e.click(); return e !== null })()`))
	require.NoError(tb, err)
	require.True(tb, found, "there is no %s", selector)
}

// Screenshot saves a picture of the page if the variable PREVIEWD_SCREENSHOTS
// names a folder.
func (b *Browser) Screenshot(tb testing.TB, name string) {
	tb.Helper()
	dir := os.Getenv("PREVIEWD_SCREENSHOTS")
	if dir == "" {
		return
	}
	require.NoError(tb, os.MkdirAll(dir, 0o755))
	require.NoError(tb, os.WriteFile(filepath.Join(dir, name+".png"), b.Picture(tb), 0o644))
}
