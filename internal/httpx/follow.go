package httpx

import (
	"context"
	"strconv"
	"time"

	"github.com/previewd/previewd"
)

// BuildSource is what following a build asks of the worker.
type BuildSource interface {
	FindBuild(ctx context.Context, id string, wait time.Duration) (*previewd.Build, error)
	ListBuildEvents(ctx context.Context, buildID string, after int64, limit int) ([]previewd.Event, error)
	ReadLog(ctx context.Context, buildID string, offset int64, limit int) (*previewd.LogChunk, error)
}

// Hints tells when rows of a topic may have changed.
type Hints interface {
	Subscribe(topic string) (hints <-chan struct{}, cancel func())
}

// BuildFollower streams a build's events, from its beginning or from a cursor,
// to its end.
type BuildFollower struct {
	Source BuildSource
	Hints  Hints
	Build  *previewd.Build
	After  int64 // the last event that the client has
	Log    bool  // stream the log too, as frames without an id
	offset int64
}

// LogFrame is the data of a "log" frame.
type LogFrame struct {
	Offset int64  `json:"offset"`
	Text   string `json:"text"`
}

const eventPage = 100

// Run streams until the build is over and all is sent, and ends with an "end"
// frame.
func (f *BuildFollower) Run(ctx context.Context, s *Stream) error {
	hints, cancel := f.Hints.Subscribe(f.Build.ProjectID) // before the rows are read
	defer cancel()
	return s.Follow(ctx, hints, func() (bool, error) { return f.step(ctx, s) })
}

// step sends what is new. The build is read before its events: when it is over
// here, the events below are all there will be.
func (f *BuildFollower) step(ctx context.Context, s *Stream) (done bool, err error) {
	build, err := f.Source.FindBuild(ctx, f.Build.ID, 0)
	if err != nil {
		return false, err
	}
	if f.Log {
		if err := f.sendLog(ctx, s); err != nil {
			return false, err
		}
	}
	for {
		events, err := f.Source.ListBuildEvents(ctx, f.Build.ID, f.After, eventPage)
		if err != nil {
			return false, err
		}
		for _, e := range events {
			if err := s.Send(strconv.FormatInt(e.Seq, 10), string(e.Type), e); err != nil {
				return false, err
			}
			f.After = e.Seq
		}
		if len(events) < eventPage {
			break
		}
	}
	if build.Status.Terminal() {
		return true, s.Send("", "end", map[string]any{"status": build.Status})
	}
	return false, nil
}

func (f *BuildFollower) sendLog(ctx context.Context, s *Stream) error {
	for {
		chunk, err := f.Source.ReadLog(ctx, f.Build.ID, f.offset, 0)
		if err != nil || len(chunk.Data) == 0 {
			return err
		}
		if err := s.Send("", "log", LogFrame{Offset: chunk.Offset, Text: string(chunk.Data)}); err != nil {
			return err
		}
		f.offset = chunk.Next
	}
}
