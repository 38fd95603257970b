package worker

import (
	"context"
	"strconv"

	"github.com/previewd/previewd"
)

const (
	feedPage    = 100
	maxFeedPage = 500
)

// ListEvents implements previewd.EventReader.
func (s *Service) ListEvents(ctx context.Context, filter previewd.EventFilter) (*previewd.EventPage, error) {
	after, err := previewd.ParseCursor(filter.After)
	if err != nil {
		return nil, err
	}
	switch {
	case filter.Limit == 0:
		filter.Limit = feedPage
	case filter.Limit < 1 || filter.Limit > maxFeedPage:
		return nil, invalid("limit must be from 1 to "+strconv.Itoa(maxFeedPage)+".", strconv.Itoa(filter.Limit))
	}
	var page *previewd.EventPage
	err = s.Changes.Wait(ctx, FeedTopic, filter.Wait, func() (done bool, err error) {
		page, err = s.listFeed(ctx, after, filter.Limit)
		return err == nil && (len(page.Events) > 0 || page.Reset), err
	})
	return page, err
}

// listFeed begins anew when the cursor is of another log than this one: of
// another generation, or ahead of it.
func (s *Service) listFeed(ctx context.Context, after previewd.Cursor, limit int) (*previewd.EventPage, error) {
	page := &previewd.EventPage{Events: []previewd.Event{}}
	// The events are read before the head: what they hold is not ahead of it.
	events, err := s.Store.ListFeed(ctx, after.Position, limit)
	if err != nil {
		return nil, err
	}
	head, err := s.Store.FindFeed(ctx)
	if err != nil {
		return nil, err
	}
	if after.Generation != 0 && after.Generation != head.Generation || after.Position > head.Position {
		page.Reset = true
		if events, err = s.Store.ListFeed(ctx, 0, limit); err != nil {
			return nil, err
		}
		after.Position = 0
	}
	page.Events = append(page.Events, events...)
	page.Next = previewd.Cursor{Generation: head.Generation, Position: after.Position}.String()
	if len(events) > 0 {
		page.Next = events[len(events)-1].Cursor
	}
	return page, nil
}

// ListBuildEvents returns a build's events after seq, in order.
func (s *Service) ListBuildEvents(ctx context.Context, buildID string, after int64, limit int) ([]previewd.Event, error) {
	return s.Store.ListBuildEvents(ctx, buildID, after, limit)
}

// FindFeed returns the feed's last place.
func (s *Service) FindFeed(ctx context.Context) (previewd.Cursor, error) {
	return s.Store.FindFeed(ctx)
}
