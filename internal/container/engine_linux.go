package container

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/previewd/previewd/internal/sandbox"
)

// engine calls a local Docker Engine (its API, over its socket). Paths without a
// version mean the newest that the engine has; what is used here is in all.
type engine struct {
	socket string
	client *http.Client
}

func newEngine(socket string) *engine {
	e := &engine{socket: cmp.Or(socket, "/var/run/docker.sock")}
	e.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", e.socket)
		},
	}}
	return e
}

// engineError is what the engine says when it refuses.
type engineError struct {
	Status  int
	Message string `json:"message"`
}

func (e *engineError) Error() string { return strings.TrimSpace(e.Message) }

func isStatus(err error, status int) bool {
	var refused *engineError
	return errors.As(err, &refused) && refused.Status == status
}

// maxAnswer bounds what the engine says to a call, in bytes.
const maxAnswer = 8 << 20

// call sends a body, or JSON of what is none, and decodes the answer into result
// unless that is nil.
func (e *engine) call(ctx context.Context, method, path string, body, result any) error {
	var content io.Reader
	kind := "application/json"
	switch body := body.(type) {
	case nil:
	case io.Reader:
		content, kind = body, "application/x-tar"
	default:
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(raw)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, content)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", kind)
	response, err := e.client.Do(request)
	if err != nil {
		return fmt.Errorf("%w: cannot reach the Docker Engine at %s: %w", sandbox.ErrUnavailable, e.socket, err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return err
	}
	if response.StatusCode >= http.StatusBadRequest {
		refused := &engineError{Status: response.StatusCode, Message: string(raw)}
		_ = json.Unmarshal(raw, refused)
		return fmt.Errorf("the Docker Engine refuses: %w", refused)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(raw, result)
}

// hasImage reports whether an image of this name is there.
func (e *engine) hasImage(ctx context.Context, name string) (bool, error) {
	err := e.call(ctx, http.MethodGet, "/images/"+name+"/json", nil, nil)
	if isStatus(err, http.StatusNotFound) {
		return false, nil
	}
	return err == nil, err
}

// importImage makes an image of a root file system, with a label.
func (e *engine) importImage(ctx context.Context, name, label string, root io.Reader) error {
	repository, tag, _ := strings.Cut(name, ":")
	query := url.Values{"fromSrc": {"-"}, "repo": {repository}, "tag": {tag}, "changes": {"LABEL " + label}}
	if err := e.call(ctx, http.MethodPost, "/images/create?"+query.Encode(), root, nil); err != nil {
		return fmt.Errorf("cannot make the image of the toolchain: %w", err)
	}
	// What goes wrong while it is made is in the text of an answer that began well.
	there, err := e.hasImage(ctx, name)
	if err == nil && !there {
		err = errors.New("the Docker Engine has not made the image of the toolchain: is its disk full?")
	}
	return err
}

type dockerImage struct {
	RepoTags []string
	Labels   map[string]string
}

// images lists those with a label.
func (e *engine) images(ctx context.Context, label string) (list []dockerImage, err error) {
	err = e.call(ctx, http.MethodGet, "/images/json?"+labelled(label).Encode(), nil, &list)
	return list, err
}

// labelled is the query for what has a label.
func labelled(label string) url.Values {
	filters, _ := json.Marshal(map[string][]string{"label": {label}}) // of strings: it cannot fail
	return url.Values{"filters": {string(filters)}}
}

// removeImage removes an image unless anything runs of it.
func (e *engine) removeImage(ctx context.Context, name string) error {
	err := e.call(ctx, http.MethodDelete, "/images/"+name, nil, nil)
	if isStatus(err, http.StatusNotFound) || isStatus(err, http.StatusConflict) {
		return nil
	}
	return err
}

// containers lists those with a label, running or not.
func (e *engine) containers(ctx context.Context, label string) (ids []string, err error) {
	var list []struct{ ID string }
	query := labelled(label)
	query.Set("all", "true")
	err = e.call(ctx, http.MethodGet, "/containers/json?"+query.Encode(), nil, &list)
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	return ids, err
}

// remove kills a container and removes it.
func (e *engine) remove(ctx context.Context, id string) error {
	err := e.call(ctx, http.MethodDelete, "/containers/"+id+"?force=true&v=true", nil, nil)
	if isStatus(err, http.StatusNotFound) || isStatus(err, http.StatusConflict) {
		return nil // it is gone, or going
	}
	return err
}
