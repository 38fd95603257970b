package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/client"
	"github.com/previewd/previewd/internal/app"
	"github.com/previewd/previewd/internal/config"
)

type demoCmd struct {
	Template string `help:"Template to create the project from." default:"app"`
	Prompt   string `help:"Prompt to create it with." default:"A quiet place to focus"`
	Once     bool   `help:"Exit after the preview has answered, and leave nothing."`
	Open     bool   `help:"Open the preview in a browser."`
}

// Run implements the command.
func (c *demoCmd) Run(e *env) (err error) {
	data, err := os.MkdirTemp("", "previewd-demo-")
	if err != nil {
		return fmt.Errorf("cannot create a temporary folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	a, err := app.New(e.ctx, app.Options{
		Config:  config.Config{Addr: "127.0.0.1:0", Data: filepath.Join(data, "data")},
		Version: buildVersion(), Log: app.NewLogger(e.streams.Err, slog.LevelWarn, false),
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(e.ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.Run(ctx) })
	group.Go(func() error {
		if err := c.show(ctx, e, a); err != nil || c.Once {
			stop()
			return err
		}
		<-ctx.Done()
		return nil
	})
	return group.Wait()
}

// show does what a user would: create, watch, look.
func (c *demoCmd) show(ctx context.Context, e *env, a *app.App) error {
	r := remote{URL: a.Config.BaseURL, Data: a.Config.Data}
	server, err := r.connect()
	if err != nil {
		return err
	}
	preview, err := server.CreatePreview(ctx, previewd.CreatePreviewRequest{
		UserID: "demo", Prompt: c.Prompt, Metadata: map[string]any{"template": c.Template},
	})
	if err != nil {
		return err
	}
	build, err := watchBuild(ctx, server, preview.BuildID, newProgress(ctx, e.streams))
	if err != nil {
		return err
	}
	title, err := lookAt(ctx, preview.PreviewURL, preview.BuildID)
	if err != nil {
		return err
	}
	took := time.Since(e.started)
	out := e.streams.Out
	fmt.Fprintf(out, "\n  %s\n\n", preview.PreviewURL)
	fmt.Fprintf(out, "  page       %s\n", title)
	fmt.Fprintf(out, "  project    %s  (id made by the %s, asked for by %s)\n", preview.ProjectID, preview.IDGenerationSource, preview.CreatedByService)
	fmt.Fprintf(out, "  build      #%d, %s runner, because %s\n", build.Seq, build.Runner, build.Reason)
	fmt.Fprintf(out, "  API        %s/docs\n", a.Config.BaseURL)
	fmt.Fprintf(out, "  answered   %d ms after the start\n", took.Milliseconds())
	if c.Open {
		openBrowser(preview.PreviewURL)
	}
	if !c.Once {
		fmt.Fprintln(out, "\nCtrl-C stops it and removes everything.")
	}
	return nil
}

// lookAt fetches a preview through its host name and makes sure that this
// build answers.
func lookAt(ctx context.Context, url, buildID string) (title string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	browser := &http.Client{Transport: client.NewTransport(), Timeout: 10 * time.Second}
	response, err := browser.Do(req)
	if err != nil {
		return "", fmt.Errorf("cannot fetch the preview: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("cannot fetch the preview: %w", err)
	}
	_, rest, found := strings.Cut(string(body), "<title>")
	title, _, closed := strings.Cut(rest, "</title>")
	switch {
	case response.StatusCode != http.StatusOK:
		return "", fmt.Errorf("the preview answers %s", response.Status)
	case response.Header.Get("X-Build-Id") != buildID:
		return "", fmt.Errorf("the preview is of build %s, not %s", response.Header.Get("X-Build-Id"), buildID)
	case !found || !closed:
		return "", errors.New("the preview is no page")
	}
	return title, nil
}
