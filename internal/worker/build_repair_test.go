package worker_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
)

// broken makes a project whose build fails at a line of a file.
func (f *fixture) broken(tree previewd.Files, failure previewd.Failure) *previewd.Build {
	f.t.Helper()
	req := request()
	req.IdempotencyKey, req.TemplateFiles = previewd.NewRequestID(), tree
	p, err := f.CreatePreview(f.t.Context(), req)
	require.NoError(f.t, err)
	return f.fail(p.BuildID, failure)
}

// fail has the build that is next fail.
func (f *fixture) fail(buildID string, failure previewd.Failure) *previewd.Build {
	f.t.Helper()
	c := f.claim()
	require.Equal(f.t, buildID, c.BuildID)
	require.NoError(f.t, f.AppendLog(f.t.Context(), c.Lease, 0, []byte("[  0.01s] $ npm run build\n[  0.02s] see src/other.ts\n")))
	_, err := f.FinishBuild(f.t.Context(), c.Lease, previewd.Outcome{Kind: previewd.OutcomeFailed, Failure: &failure, Runner: "sandbox", Reason: "it says so"})
	require.NoError(f.t, err)
	b, err := f.FindBuild(f.t.Context(), buildID, 0)
	require.NoError(f.t, err)
	return b
}

func typeError(line int) previewd.Failure {
	return previewd.Failure{
		Class: previewd.FailureUser, Code: previewd.FailType, Step: previewd.StepBuild, Message: "No such thing, see src/kind.ts.",
		File: "src/main.ts", Line: line, Column: 3, Excerpt: "x",
	}
}

func repairOf(b *previewd.Build, change ...func(*previewd.RepairBuildRequest)) previewd.RepairBuildRequest {
	req := previewd.RepairBuildRequest{
		BuildID: b.ID, TemplateFiles: previewd.Files{"src/main.ts": []byte("fixed")}, IdempotencyKey: previewd.NewRequestID(), Caller: caller,
	}
	for _, c := range change {
		c(&req)
	}
	return req
}

func aTree() previewd.Files {
	return previewd.Files{
		"index.html": []byte("<p>"), "src/main.ts": []byte("one\ntwo\nthree\n"), "src/other.ts": []byte("other"), "src/kind.ts": []byte("kind"),
		"package.json": []byte("{}"), "tsconfig.app.json": []byte("{}"), "logo.png": {0x89, 'P', 0, 1}, "notes.md": []byte("no"),
	}
}

func TestFailurePacketTellsWhatMendingTakes(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		b := f.broken(aTree(), typeError(2))
		p, err := f.FindFailure(t.Context(), b.ID)
		require.NoError(t, err)
		require.Equal(t, *b.Failure, p.Failure)
		require.Equal(t, []any{b.ID, b.ProjectID, b.Seq, b.ReferenceID, "a page", b.Source, true},
			[]any{p.BuildID, p.ProjectID, p.Seq, p.ReferenceID, p.Prompt, p.Source, p.Repairable})
		require.Equal(t, previewd.Tried{Runner: "sandbox", Reason: "it says so", Attempts: 1, Earlier: []previewd.EarlierRepair{}}, p.Tried)
		require.Contains(t, p.Log, "$ npm run build")
		require.Equal(t, []string{"index.html", "logo.png", "notes.md", "package.json", "src/kind.ts", "src/main.ts", "src/other.ts", "tsconfig.app.json"}, p.Paths)
		var names []string
		for _, file := range p.Files {
			names = append(names, file.Path)
			require.True(t, file.Whole)
			require.Equal(t, string(aTree()[file.Path]), file.Content)
		}
		require.Equal(t, []string{"src/main.ts", "src/kind.ts", "package.json", "src/other.ts", "index.html", "tsconfig.app.json"}, names,
			"the file, then what its words name, then what the log names and what configures the build")
	})
}

func TestFailurePacketShowsTheLinesAround(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		var long strings.Builder
		for i := range 5000 {
			fmt.Fprintf(&long, "line %d of a long file\n", i+1)
		}
		tree := aTree()
		tree["src/main.ts"] = []byte(long.String())
		tree["package.json"] = []byte(`"` + strings.Repeat("x", 30<<10) + `"`) // one line, and too long
		p, err := f.FindFailure(t.Context(), f.broken(tree, typeError(4000)).ID)
		require.NoError(t, err)
		main := p.Files[0]
		require.Equal(t, "src/main.ts", main.Path)
		require.False(t, main.Whole)
		require.Equal(t, long.Len(), main.Bytes)
		require.LessOrEqual(t, len(main.Content), 24<<10)
		lines := strings.Split(main.Content, "\n")
		require.Equal(t, fmt.Sprintf("line %d of a long file", main.FirstLine), lines[0])
		require.Equal(t, "line 4000 of a long file", lines[4000-main.FirstLine])
		total := 0
		for _, file := range p.Files {
			require.NotEqual(t, "package.json", file.Path)
			total += len(file.Content)
		}
		require.LessOrEqual(t, total, 64<<10)
	})
}

func TestRepairChangesTheTreeThatFailed(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		first := f.broken(aTree(), typeError(2))
		req := repairOf(first, func(r *previewd.RepairBuildRequest) {
			r.Remove, r.TemplateFiles["src/new.ts"] = []string{"notes.md"}, []byte("new")
		})
		second, err := f.RepairBuild(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, []any{first.ProjectID, int64(2), first.ID, first.Prompt, 8}, []any{second.ProjectID, second.Seq, second.Repairs, second.Prompt, second.Source.Files})
		again, err := f.RepairBuild(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, previewd.ReplayedKey, again.Replayed)
		require.Equal(t, second.ID, again.ID)
		other := req
		other.Remove = nil
		_, err = f.RepairBuild(t.Context(), other)
		require.Equal(t, previewd.CodeKeyReused, previewd.ErrorCode(err))

		f.fail(second.ID, typeError(1))
		p, err := f.FindFailure(t.Context(), second.ID)
		require.NoError(t, err)
		require.Equal(t, "fixed", p.Files[0].Content)
		require.Contains(t, p.Paths, "src/new.ts")
		require.NotContains(t, p.Paths, "notes.md")
		require.Equal(t, []previewd.EarlierRepair{{
			BuildID: first.ID, Seq: 1, Prompt: "a page", Code: previewd.FailType, Message: "No such thing, see src/kind.ts.", File: "src/main.ts", Line: 2,
			Changed: []string{"notes.md", "src/main.ts", "src/new.ts"},
		}}, p.Tried.Earlier)

		third, err := f.RepairBuild(t.Context(), repairOf(second, func(r *previewd.RepairBuildRequest) { r.Prompt = "mend it" }))
		require.Error(t, err, "the same bytes")
		require.Nil(t, third)
		third, err = f.RepairBuild(t.Context(), repairOf(second, func(r *previewd.RepairBuildRequest) {
			r.Prompt, r.TemplateFiles = "mend it", previewd.Files{"src/main.ts": []byte("really")}
		}))
		require.NoError(t, err)
		require.Equal(t, []any{"mend it", second.ID}, []any{third.Prompt, third.Repairs})
		_, err = f.finish(f.claim())
		require.NoError(t, err)
	})
}

// What a newer build was made of is not lost by a repair of an older one.
func TestRepairOfAnOlderBuildIsRefused(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		b := f.broken(aTree(), typeError(2))
		f.rebuild(b.ProjectID)
		late := repairOf(b)
		for _, replayed := range []previewd.Replayed{"", previewd.ReplayedKey} {
			_, err := f.RepairBuild(t.Context(), late)
			var refused *previewd.Error
			require.ErrorAs(t, err, &refused)
			require.Equal(t, previewd.CodeBuildOutdated, refused.Code)
			require.Equal(t, replayed, refused.Replayed, "a refusal that depends on rows is repeated")
		}
		p, err := f.FindFailure(t.Context(), b.ID)
		require.NoError(t, err)
		require.False(t, p.Repairable)
	})
}

// A repair that its user takes back leaves the build before it to be repaired.
func TestRepairAfterACanceledOne(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		b := f.broken(aTree(), typeError(2))
		second, err := f.RepairBuild(t.Context(), repairOf(b))
		require.NoError(t, err)
		_, err = f.CancelBuild(t.Context(), previewd.CancelBuildRequest{BuildID: second.ID, Caller: caller})
		require.NoError(t, err)
		_, err = f.RepairBuild(t.Context(), repairOf(second))
		require.Equal(t, previewd.CodeNotFailed, previewd.ErrorCode(err))
		third, err := f.RepairBuild(t.Context(), repairOf(b))
		require.NoError(t, err)
		require.EqualValues(t, 3, third.Seq)
	})
}

// puts counts what is stored.
type puts struct {
	artifact.Store
	n atomic.Int64
}

func (p *puts) PutBytes(ctx context.Context, content []byte) (previewd.Blob, error) {
	p.n.Add(1)
	return p.Store.PutBytes(ctx, content)
}

// A refused repair costs nothing but its answer, which its key keeps.
func TestRefusedRepairsStoreNothing(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		var stored *puts
		f := setup(t, db, func(c *worker.Config) {
			stored = &puts{Store: c.Artifacts}
			c.Artifacts = stored
		})
		running := f.create()
		early := repairOf(&previewd.Build{ID: running.BuildID})
		refuse := func(req previewd.RepairBuildRequest, code previewd.Code) {
			t.Helper()
			before := stored.n.Load()
			_, err := f.RepairBuild(t.Context(), req)
			require.Equal(t, code, previewd.ErrorCode(err))
			require.Equal(t, before, stored.n.Load())
		}
		refuse(early, previewd.CodeNotFailed)
		failed := f.fail(running.BuildID, typeError(1))
		_, err := f.RepairBuild(t.Context(), early)
		require.Equal(t, previewd.CodeNotFailed, previewd.ErrorCode(err), "a late copy, whose sender was told no")
		f.rebuild(failed.ProjectID)
		refuse(repairOf(failed), previewd.CodeBuildOutdated)
	})
}

// Of many repairs of one build one is made; the rest are told that it is not the newest.
func TestRepairsRace(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		b := f.broken(aTree(), typeError(2))
		var mu sync.Mutex
		codes := map[previewd.Code]int{}
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				_, err := f.RepairBuild(t.Context(), repairOf(b, func(r *previewd.RepairBuildRequest) {
					r.TemplateFiles = previewd.Files{"src/main.ts": fmt.Appendf(nil, "try %d", i)}
				}))
				mu.Lock()
				defer mu.Unlock()
				codes[previewd.ErrorCode(err)]++
			})
		}
		all.Wait()
		require.Equal(t, map[previewd.Code]int{"": 1, previewd.CodeBuildOutdated: 19}, codes)
	})
}

func TestRepairsThatCannotBe(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		running := f.create()
		b, err := f.FindBuild(t.Context(), running.BuildID, 0)
		require.NoError(t, err)
		_, err = f.RepairBuild(t.Context(), repairOf(b))
		require.Equal(t, previewd.CodeNotFailed, previewd.ErrorCode(err))
		_, err = f.FindFailure(t.Context(), b.ID)
		require.Equal(t, previewd.CodeNotFailed, previewd.ErrorCode(err))
		_, err = f.finish(f.claim())
		require.NoError(t, err)
		_, err = f.RepairBuild(t.Context(), repairOf(b))
		require.ErrorContains(t, err, "it is completed")
		for _, id := range []string{"", "no id", previewd.NewID()} {
			_, err = f.FindFailure(t.Context(), id)
			require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
			_, err = f.RepairBuild(t.Context(), repairOf(&previewd.Build{ID: id}))
			require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
		}

		b = f.broken(aTree(), typeError(2))
		bad := map[string]func(*previewd.RepairBuildRequest){
			"nothing to repair with": func(r *previewd.RepairBuildRequest) { r.TemplateFiles = nil },
			"changed and removed":    func(r *previewd.RepairBuildRequest) { r.Remove = []string{"src/main.ts"} },
			"not in the build's":     func(r *previewd.RepairBuildRequest) { r.Remove = []string{"../etc/passwd"} },
			"change something": func(r *previewd.RepairBuildRequest) {
				r.TemplateFiles = previewd.Files{"src/main.ts": aTree()["src/main.ts"]}
			},
			"is not allowed": func(r *previewd.RepairBuildRequest) { r.TemplateFiles = previewd.Files{"../up": []byte("x")} },
			"needs a folder": func(r *previewd.RepairBuildRequest) { r.TemplateFiles = previewd.Files{"src/main.ts/x": []byte("x")} },
			"removes every file": func(r *previewd.RepairBuildRequest) {
				r.TemplateFiles = nil
				for name := range aTree() {
					r.Remove = append(r.Remove, name)
				}
			},
			"longer than": func(r *previewd.RepairBuildRequest) { r.Prompt = strings.Repeat("x", previewd.MaxPromptBytes+1) },
		}
		for words, change := range bad {
			_, err := f.RepairBuild(t.Context(), repairOf(b, change))
			require.ErrorContains(t, err, words)
		}
		made, err := f.RepairBuild(t.Context(), repairOf(b))
		require.NoError(t, err, "none of them has taken its place")
		require.EqualValues(t, 2, made.Seq)
	})
}

// A key goes on answering when the project is deleted.
func TestRepairIsAnsweredForADeletedProject(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		b := f.broken(aTree(), typeError(2))
		req := repairOf(b)
		made, err := f.RepairBuild(t.Context(), req)
		require.NoError(t, err)
		require.NoError(t, f.DeleteProject(t.Context(), previewd.DeleteProjectRequest{ProjectID: b.ProjectID, Caller: caller}))
		again, err := f.RepairBuild(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, made.ID, again.ID)
		_, err = f.RepairBuild(t.Context(), repairOf(b))
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
	})
}
