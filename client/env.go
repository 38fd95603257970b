package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/previewd/previewd"
)

// envBody is a variable on its way to the server: the only place where its value
// is written out.
type envBody struct {
	Value  string              `json:"value"`
	Secret bool                `json:"secret,omitempty"`
	Scopes []previewd.EnvScope `json:"scopes,omitempty"`
}

// ListEnv returns the variables of a project's builds; values of secrets are
// never told.
func (c *Client) ListEnv(ctx context.Context, projectID string) ([]previewd.EnvVar, error) {
	return c.listEnv(ctx, "/v1/projects/"+url.PathEscape(projectID)+"/env")
}

// SetEnv stores a variable, in place of one of its name. It is safe to repeat by
// its nature.
func (c *Client) SetEnv(ctx context.Context, req previewd.SetEnvRequest) (*previewd.EnvVar, error) {
	return c.setEnv(ctx, "/v1/projects/"+url.PathEscape(req.ProjectID)+"/env/"+url.PathEscape(req.Name), req)
}

// DeleteEnv removes a variable. It is safe to repeat by its nature.
func (c *Client) DeleteEnv(ctx context.Context, req previewd.DeleteEnvRequest) error {
	return c.do(ctx, request{
		method: http.MethodDelete, path: "/v1/projects/" + url.PathEscape(req.ProjectID) + "/env/" + url.PathEscape(req.Name),
	})
}

func (c *Client) listEnv(ctx context.Context, path string) ([]previewd.EnvVar, error) {
	var list struct{ Variables []previewd.EnvVar }
	err := c.do(ctx, request{method: http.MethodGet, path: path, out: &list})
	return list.Variables, err
}

func (c *Client) setEnv(ctx context.Context, path string, req previewd.SetEnvRequest) (*previewd.EnvVar, error) {
	var v previewd.EnvVar
	err := c.do(ctx, request{
		method: http.MethodPut, path: path, in: envBody{Value: string(req.Value), Secret: req.Secret, Scopes: req.Scopes}, out: &v,
	})
	return &v, err
}

// Env returns the variables of a project of the user's; as ListEnv.
func (u *User) Env(ctx context.Context, projectID string) ([]previewd.EnvVar, error) {
	return u.c.listEnv(ctx, "/api/projects/"+url.PathEscape(projectID)+"/env")
}

// SetEnv stores a variable of a project of the user's, in place of one of its name.
func (u *User) SetEnv(ctx context.Context, req previewd.SetEnvRequest) (*previewd.EnvVar, error) {
	return u.c.setEnv(ctx, "/api/projects/"+url.PathEscape(req.ProjectID)+"/env/"+url.PathEscape(req.Name), req)
}

// DeleteEnv removes a variable of a project of the user's.
func (u *User) DeleteEnv(ctx context.Context, projectID, name string) error {
	return u.c.do(ctx, request{method: http.MethodDelete, path: "/api/projects/" + url.PathEscape(projectID) + "/env/" + url.PathEscape(name)})
}
