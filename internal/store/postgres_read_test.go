package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// Reads that share a query see what was committed before they came, and nothing
// of each other.
func TestManyReadsAtATime(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		shared := newCreation("shared", "")
		_, err := db.CreatePreview(t.Context(), shared)
		require.NoError(t, err)
		var readers errgroup.Group
		for range 64 {
			readers.Go(func() error {
				own := newCreation("u-"+previewd.NewID(), "")
				if _, err := db.CreatePreview(t.Context(), own); err != nil {
					return err
				}
				for round := range 5 {
					step := fmt.Sprint("step ", round)
					err := db.Tx(t.Context(), "test", func(tx *store.DB) error {
						return store.Exec(t.Context(), tx, `UPDATE worker_builds SET step = '`+step+`' WHERE id = '`+own.Build.ID+`'`)
					})
					if err != nil {
						return err
					}
					for range 20 {
						if b, err := db.FindBuild(t.Context(), own.Build.ID); err != nil || b.ProjectID != own.Project.ID || b.Step != step {
							t.Errorf("found %+v, %v after the commit of %q", b, err, step)
						}
						b, err := db.FindBuild(t.Context(), shared.Build.ID)
						if err != nil || b.PreviewURL != "" {
							t.Errorf("found %+v, %v that another has written into", b, err)
							continue
						}
						b.PreviewURL = own.Build.ID
					}
					for _, id := range []string{previewd.NewID(), "", "\x00", "'"} {
						if b, err := db.FindBuild(t.Context(), id); previewd.ErrorCode(err) != previewd.CodeNotFound {
							t.Errorf("found %+v, %v of none", b, err)
						}
					}
				}
				return nil
			})
		}
		require.NoError(t, readers.Wait())
	})
}

// A reader that gives up takes nothing from the others.
func TestReadersGiveUp(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		c := newCreation("u", "")
		_, err := db.CreatePreview(t.Context(), c)
		require.NoError(t, err)
		var wg sync.WaitGroup
		for i := range 2000 {
			ctx, cancel := context.WithCancel(t.Context())
			wg.Go(func() {
				_, err := db.FindBuild(ctx, c.Build.ID)
				if err != nil && (i%2 == 0 || !errors.Is(err, context.Canceled)) {
					t.Error(err)
				}
			})
			if i%2 == 1 {
				wg.Go(cancel)
			} else {
				defer cancel()
			}
		}
		wg.Wait()
		_, err = db.FindBuild(t.Context(), c.Build.ID)
		require.NoError(t, err)
	})
}
