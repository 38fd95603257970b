package app_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/client"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/testkit"
)

const userToken = "user-token-0123456789"

// A user's way through /api with the Go client, on a whole server.
func TestUserClient(t *testing.T) {
	t.Parallel()
	cfg := config.Config{}
	cfg.UserToken, cfg.PriceBuildSecond = userToken, 1_000_000
	a := testkit.StartApp(t, cfg)
	user, err := client.NewUser(client.Config{URL: a.Config.BaseURL, Token: userToken})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()

	made, err := user.CreateProject(ctx, client.NewProject{Prompt: "a tea house", Template: "landing"})
	require.NoError(t, err)
	require.NotNil(t, made.Project)
	var types []previewd.EventType
	over := context.Canceled
	err = user.Follow(ctx, made.Project.ID, "0", func(e previewd.Event) error {
		types = append(types, e.Type)
		if e.Type == previewd.EventBuildCompleted {
			require.Equal(t, string(previewd.ProjectDeployed), e.Data["status"])
			return over
		}
		return nil
	})
	require.ErrorIs(t, err, over)
	require.Equal(t, previewd.EventProjectCreated, types[0])

	b, err := user.Build(ctx, made.Build.ID, 10*time.Second)
	require.NoError(t, err)
	require.Equal(t, previewd.ProjectDeployed, b.Status)
	p, err := user.RenameProject(ctx, made.Project.ID, "Tea")
	require.NoError(t, err)
	require.Equal(t, "Tea", p.Name)
	next, err := user.CreateBuild(ctx, made.Project.ID, client.NewBuild{TemplateFiles: previewd.Files{"index.html": []byte("<h1>tea</h1>")}})
	require.NoError(t, err)
	require.Equal(t, int64(2), next.Build.Seq)
	_, err = user.CancelBuild(ctx, next.Build.ID)
	require.NoError(t, err)
	bill, err := user.Billing(ctx, previewd.Page{})
	require.NoError(t, err)
	require.Len(t, bill.Sessions, 2)
	list, err := user.Projects(ctx, previewd.Page{})
	require.NoError(t, err)
	require.Len(t, list.Projects, 1)
	require.NoError(t, user.DeleteProject(ctx, made.Project.ID))
	_, err = user.Project(ctx, made.Project.ID)
	require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
}

// A user's build fails, its packet says where, and its repair is shown.
func TestUserRepairsABuild(t *testing.T) {
	t.Parallel()
	cfg := config.Config{}
	cfg.UserToken = userToken
	a := testkit.StartApp(t, cfg)
	user, err := client.NewUser(client.Config{URL: a.Config.BaseURL, Token: userToken})
	require.NoError(t, err)
	made, err := user.CreateProject(t.Context(), client.NewProject{TemplateFiles: previewd.Files{
		"index.html": []byte(`<script type="module" src="/main.ts"></script>`), "main.ts": []byte("const a: number = 1\nlet = = 1\n"),
	}})
	require.NoError(t, err)
	ended := func(id string) *previewd.AppBuild {
		var b *previewd.AppBuild
		testkit.Eventually(t, "the build is over", func() bool {
			b, err = user.Build(t.Context(), id, 10*time.Second)
			require.NoError(t, err)
			return b.FinishedAt != nil
		})
		return b
	}
	require.Equal(t, previewd.ProjectFailed, ended(made.Build.ID).Status)
	p, err := user.Failure(t.Context(), made.Build.ID)
	require.NoError(t, err)
	require.Equal(t, []any{previewd.FailBundle, "main.ts", 2, true}, []any{p.Failure.Code, p.Failure.File, p.Failure.Line, p.Repairable})
	require.Equal(t, "main.ts", p.Files[0].Path)
	require.Contains(t, p.Files[0].Content, "let = = 1")

	repair := previewd.RepairBuildRequest{
		BuildID: made.Build.ID, TemplateFiles: previewd.Files{"main.ts": []byte("document.title = 'mended'\n")}, IdempotencyKey: previewd.NewRequestID(),
	}
	mended, err := user.RepairBuild(t.Context(), repair)
	require.NoError(t, err)
	again, err := user.RepairBuild(t.Context(), repair)
	require.NoError(t, err)
	require.Equal(t, mended.Build.ID, again.Build.ID)
	require.Equal(t, previewd.ProjectDeployed, ended(mended.Build.ID).Status)
	repair.IdempotencyKey, repair.BuildID = "", mended.Build.ID
	_, err = user.RepairBuild(t.Context(), repair)
	require.Equal(t, previewd.CodeNotFailed, previewd.ErrorCode(err))
	repair.BuildID, repair.TemplateFiles = made.Build.ID, previewd.Files{"main.ts": []byte("1")}
	_, err = user.RepairBuild(t.Context(), repair)
	require.Equal(t, previewd.CodeBuildOutdated, previewd.ErrorCode(err))
}

// A snapshot is one message however much it holds.
func TestUserFollowsManyProjects(t *testing.T) {
	t.Parallel()
	cfg := config.Config{}
	cfg.UserToken = userToken
	a := testkit.StartApp(t, cfg)
	user, err := client.NewUser(client.Config{URL: a.Config.BaseURL, Token: userToken})
	require.NoError(t, err)
	for i := range 3 {
		prompt := strings.Repeat(strconv.Itoa(i), previewd.MaxPromptBytes)
		_, err := user.CreateProject(t.Context(), client.NewProject{Prompt: prompt, Template: "landing"})
		require.NoError(t, err)
	}
	seen := errors.New("seen")
	err = user.Follow(t.Context(), "", "", func(e previewd.Event) error {
		require.EqualValues(t, "snapshot", e.Type)
		require.Len(t, e.Data["projects"], 3)
		return seen
	})
	require.ErrorIs(t, err, seen)
}

// Pages of allowed origins may call /api, others and other routes may not.
func TestAllowedOrigins(t *testing.T) {
	t.Parallel()
	cfg := config.Config{}
	cfg.UserToken, cfg.AllowOrigin = userToken, []string{"https://app.example.com"}
	a := testkit.StartApp(t, cfg)
	preflight := func(path, origin string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, a.Config.BaseURL+path, nil)
		require.NoError(t, err)
		req.Header.Set("Origin", origin)
		req.Header.Set("Access-Control-Request-Method", http.MethodPost)
		req.Header.Set("Access-Control-Request-Headers", "authorization,content-type,idempotency-key")
		response, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		response.Body.Close()
		return response.Header.Get("Access-Control-Allow-Origin")
	}
	require.Equal(t, "https://app.example.com", preflight("/api/projects", "https://app.example.com"))
	require.Empty(t, preflight("/api/projects", "https://other.example.com"))
	require.Empty(t, preflight("/v1/projects", "https://app.example.com"))
}
