package gateway

import (
	"context"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

func (a *API) listEnv(ctx context.Context, in *projectInput) (*output[httpx.EnvList], error) {
	list, err := a.Service.ListEnv(ctx, httpx.UserOf(ctx).ID, in.ProjectID)
	return &output[httpx.EnvList]{httpx.EnvList{Variables: list}}, err
}

func (a *API) setEnv(ctx context.Context, in *httpx.SetEnvInput) (*output[*previewd.EnvVar], error) {
	v, err := a.Service.SetEnv(ctx, requestOf(ctx, ""), in.Request(previewd.Caller{}))
	return &output[*previewd.EnvVar]{v}, err
}

func (a *API) deleteEnv(ctx context.Context, in *httpx.EnvInput) (*struct{}, error) {
	return nil, a.Service.DeleteEnv(ctx, requestOf(ctx, ""), in.ProjectID, in.Name)
}
