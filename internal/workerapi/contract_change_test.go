package workerapi_test

import (
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

func (c *contract) repair() {
	ctx, p := c.t.Context(), c.made()
	_, err := c.FindFailure(ctx, p.BuildID)
	c.fails(previewd.CodeNotFailed, err)
	claim, err := c.service.ClaimBuild(ctx, "runner", 0)
	require.NoError(c.t, err)
	_, err = c.service.FinishBuild(ctx, claim.Lease, previewd.Outcome{Kind: previewd.OutcomeFailed, Failure: &previewd.Failure{
		Class: previewd.FailureUser, Code: previewd.FailBundle, Message: "It does not parse.", File: "index.html", Line: 1,
	}})
	require.NoError(c.t, err)
	c.same(c.FindFailure(ctx, p.BuildID))(c.service.FindFailure(ctx, p.BuildID))

	req := previewd.RepairBuildRequest{
		BuildID: p.BuildID, TemplateFiles: previewd.Files{"index.html": []byte("mended")}, IdempotencyKey: previewd.NewRequestID(), Caller: caller,
	}
	first, err := c.RepairBuild(ctx, req)
	require.NoError(c.t, err)
	require.Equal(c.t, p.BuildID, first.Repairs)
	replay, err := c.RepairBuild(ctx, req)
	require.NoError(c.t, err)
	require.Equal(c.t, previewd.ReplayedKey, replay.Replayed)
	require.Equal(c.t, first.ID, replay.ID)
	req.IdempotencyKey = previewd.NewRequestID()
	_, err = c.RepairBuild(ctx, req)
	c.fails(previewd.CodeBuildOutdated, err)
	req.IdempotencyKey, req.Prompt = previewd.NewRequestID(), strings.Repeat("x", previewd.MaxPromptBytes+1)
	_, err = c.RepairBuild(ctx, req)
	c.fails(previewd.CodeTooLarge, err)
	req.BuildID = previewd.NewID()
	_, err = c.FindFailure(ctx, req.BuildID)
	c.fails(previewd.CodeNotFound, err)
}

func (c *contract) env() {
	ctx, p := c.t.Context(), c.made()
	set := previewd.SetEnvRequest{ProjectID: p.ProjectID, Name: "API_URL", Value: "https://a.test/?ä&<", Scopes: []previewd.EnvScope{"install", "build"}, Caller: caller}
	for range 2 {
		v, err := c.SetEnv(ctx, set)
		require.NoError(c.t, err)
		require.Equal(c.t, "https://a.test/?ä&<", *v.Value)
	}
	secret := set
	secret.Name, secret.Secret, secret.Scopes = "TOKEN", true, nil
	v, err := c.SetEnv(ctx, secret)
	require.NoError(c.t, err)
	require.Nil(c.t, v.Value)
	require.Equal(c.t, []previewd.EnvScope{"build"}, v.Scopes)
	c.same(c.ListEnv(ctx, p.ProjectID))(c.service.ListEnv(ctx, p.ProjectID))
	claim, err := c.service.ClaimBuild(ctx, "runner", 0)
	require.NoError(c.t, err)
	require.Equal(c.t, "https://a.test/?ä&<", string(claim.Vars[1].Value), "as it was sent")

	bad := set
	bad.Name, bad.Value = "PATH", "not told by errors"
	_, err = c.SetEnv(ctx, bad)
	require.NotContains(c.t, c.fails(previewd.CodeInvalid, err).Error(), "not told")
	for _, name := range []string{"", "..", "A/B", "A B"} {
		bad.Name = name
		_, err = c.SetEnv(ctx, bad)
		c.fails(previewd.CodeInvalid, err)
		c.fails(previewd.CodeInvalid, c.DeleteEnv(ctx, previewd.DeleteEnvRequest{ProjectID: p.ProjectID, Name: name, Caller: caller}))
	}
	for range 2 {
		require.NoError(c.t, c.DeleteEnv(ctx, previewd.DeleteEnvRequest{ProjectID: p.ProjectID, Name: "TOKEN", Caller: caller}))
	}
	list, err := c.ListEnv(ctx, p.ProjectID)
	require.NoError(c.t, err)
	require.Len(c.t, list, 1)
	for _, id := range []string{previewd.NewID(), "", "x"} {
		_, err = c.ListEnv(ctx, id)
		c.fails(previewd.CodeNotFound, err)
		set.ProjectID = id
		_, err = c.SetEnv(ctx, set)
		c.fails(previewd.CodeNotFound, err)
		c.fails(previewd.CodeNotFound, c.DeleteEnv(ctx, previewd.DeleteEnvRequest{ProjectID: id, Name: "A", Caller: caller}))
	}
}
