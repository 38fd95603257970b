package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
	"github.com/previewd/previewd/internal/store"
)

// coalesceFor is how long a request waits for an equal one that is under way.
const coalesceFor = 5 * time.Second

// errDiscarded says that an equal request came to nothing.
var errDiscarded = errors.New("the equal request came to nothing")

// answerNew asks the worker for a new intent and answers the request by what
// became of it. The user may have gone away: what was begun goes on.
func (s *Service) answerNew(ctx context.Context, in *store.Intent) (*previewd.AppCreation, error) {
	after, err := s.work(context.WithoutCancel(ctx), in, s.Patience)
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, after, "")
}

// coalesce answers a request whose equal came before.
func (s *Service) coalesce(ctx context.Context, mine, other *store.Intent, why previewd.Replayed) (*previewd.AppCreation, error) {
	known := &previewd.StoredKey{Operation: other.Operation, Fingerprint: other.Fingerprint, Answered: !other.BodyPruned}
	if why == previewd.ReplayedKey && previewd.DecideKey(known, mine.Operation, mine.Fingerprint) == previewd.KeyReused {
		return nil, previewd.ReusedKey()
	}
	hints, cancel := s.Changes.Subscribe(intentTopic(other.ID))
	defer cancel()
	over := time.NewTimer(coalesceFor)
	defer over.Stop()
	look := time.NewTicker(200 * time.Millisecond) // a hint can be lost with the process that owed it
	defer look.Stop()
	for {
		in, err := s.Store.FindIntent(ctx, mine.UserID, other.ID)
		if previewd.ErrorCode(err) == previewd.CodeNotFound {
			return nil, errDiscarded
		}
		if err != nil {
			return nil, err
		}
		if in.State.Final() || in.State == previewd.IntentAttention {
			return s.answer(ctx, in, why)
		}
		taken, postponed, err := s.takeOver(ctx, in)
		switch {
		case err != nil:
			return nil, err
		case postponed:
			return s.answer(ctx, in, why)
		case taken != nil:
			after, err := s.work(context.WithoutCancel(ctx), taken, s.Patience)
			if err != nil {
				return nil, err
			}
			return s.answer(ctx, after, why)
		}
		select {
		case <-hints:
		case <-look.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-over.C:
			return nil, &previewd.Error{
				Code: previewd.CodeKeyInFlight, Message: "An equal request is still under way: ask again with the same key, or follow the intent.",
				Details: "intent " + in.ID, RetryAfter: time.Second,
			}
		}
	}
}

// takeOver claims a pending intent whose process is gone. One that waits for
// its next attempt has been answered with 202, and so is this request.
func (s *Service) takeOver(ctx context.Context, in *store.Intent) (taken *store.Intent, postponed bool, err error) {
	err = s.Store.Tx(ctx, "intent.claim", func(tx *store.DB) (err error) {
		taken, postponed = nil, false
		if in.ClaimUntil.After(tx.Now()) && !fault.Off(fault.IntentClaim) {
			return nil
		}
		if postponed = in.NextAttemptAt.After(tx.Now()); postponed {
			return nil
		}
		taken, err = tx.ClaimIntent(ctx, s.claim(), in.ID)
		return err
	})
	return taken, postponed, err
}

// answer tells what became of an intent.
func (s *Service) answer(ctx context.Context, in *store.Intent, why previewd.Replayed) (*previewd.AppCreation, error) {
	replay := previewd.Replay{}
	if why != "" {
		s.counts.Replays.Add(1)
		replay = previewd.Replay{Replayed: why, OriginalRequestID: in.RequestID}
	}
	switch {
	case !in.State.Final() || in.State == previewd.IntentCanceled:
		return &previewd.AppCreation{Intent: &in.Intent, Replay: replay}, nil
	case in.BodyPruned:
		return s.present(ctx, in, replay)
	case in.State == previewd.IntentRejected:
		refused := new(previewd.Error)
		if err := json.Unmarshal(in.Body, refused); err != nil {
			return nil, fmt.Errorf("cannot read the stored refusal: %w", err)
		}
		refused.Replay = replay
		return nil, refused
	}
	stored := new(previewd.AppCreation)
	if err := json.Unmarshal(in.Body, stored); err != nil {
		return nil, fmt.Errorf("cannot read the stored answer: %w", err)
	}
	stored.Replay = replay
	return stored, nil
}

// present answers by how things are now: the stored answer is no longer kept.
func (s *Service) present(ctx context.Context, in *store.Intent, replay previewd.Replay) (*previewd.AppCreation, error) {
	replay.Replayed = previewd.ReplayedResource
	if in.State == previewd.IntentRejected {
		return nil, &previewd.Error{
			Code: in.LastError, Message: "The request was refused, and the words are no longer kept: use a new key to try again.", Replay: replay,
		}
	}
	p, err := s.Store.FindAppProject(ctx, in.UserID, in.ProjectID)
	if err != nil {
		return nil, err
	}
	b, err := s.Store.FindAppBuild(ctx, in.UserID, in.BuildID)
	if err != nil {
		return nil, err
	}
	return &previewd.AppCreation{Project: &p.AppProject, Build: &b.AppBuild, Replay: replay}, nil
}
