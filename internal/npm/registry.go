package npm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	dialTimeout   = 10 * time.Second
	answerTimeout = 30 * time.Second
	fetchTimeout  = 5 * time.Minute // of a whole tarball
	maxRedirects  = 5
)

// registry is the server that is mirrored.
type registry struct {
	base   *url.URL
	client *http.Client
}

// request is what the registry is asked. Nothing of it comes from a client but the
// path, which target has read.
type request struct {
	path, accept, etag string
	limit              int64 // of the answer, in bytes
}

var errNotModified = errors.New("not modified")

func newClient() *http.Client {
	return &http.Client{
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			first := via[0].URL
			if req.URL.Host != first.Host || req.URL.Scheme != first.Scheme || len(via) > maxRedirects {
				return http.ErrUseLastResponse
			}
			return nil
		},
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout:   dialTimeout,
			ResponseHeaderTimeout: answerTimeout,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   maxRequests,
			IdleConnTimeout:       90 * time.Second,
		},
	}
}

// get writes the registry's whole answer to w and returns its header. It returns
// errNotModified when what has ask's etag is still right. It knows no client that
// waits: whoever else waits for the same must get it when that one goes away.
func (r registry) get(ask request, w io.Writer) (http.Header, error) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base.String()+ask.path, nil)
	if err != nil {
		return nil, err
	}
	if ask.accept != "" {
		req.Header.Set("Accept", ask.accept)
	}
	if ask.etag != "" {
		req.Header.Set("If-None-Match", ask.etag)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
	case resp.StatusCode == http.StatusNotModified && ask.etag != "":
		return nil, errNotModified
	case resp.StatusCode == http.StatusNotFound:
		return nil, errNotFound
	default:
		return nil, fmt.Errorf("the registry answers %s to %s", resp.Status, ask.path)
	}
	size, err := io.Copy(w, io.LimitReader(resp.Body, ask.limit+1))
	if err != nil {
		return nil, fmt.Errorf("cannot load %s: %w", ask.path, err)
	}
	if size > ask.limit {
		return nil, errTooBig
	}
	return resp.Header, nil
}
