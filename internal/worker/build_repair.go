package worker

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

// RepairBuild implements previewd.Repairer. It is CreateBuild with a tree that is
// made here: the failed build's, with the changes.
func (s *Service) RepairBuild(ctx context.Context, req previewd.RepairBuildRequest) (*previewd.Build, error) {
	if !previewd.IsID(req.BuildID) {
		return nil, previewd.NotFound("build", req.BuildID)
	}
	if err := checkText("prompt", req.Prompt, s.Limits.PromptBytes); err != nil {
		return nil, err
	}
	key := store.Key{
		Principal: req.Caller.Principal, Key: req.IdempotencyKey, Operation: operationRepairBuild,
		Fingerprint: previewd.Fingerprint(append([]string{operationRepairBuild, req.BuildID, req.Prompt, digestFiles(req.TemplateFiles)}, req.Remove...)...),
		Status:      http.StatusCreated, RequestID: req.Caller.RequestID,
	}
	broken, err := s.Store.FindBuild(ctx, req.BuildID)
	if err != nil {
		return s.repairedBefore(ctx, key, err)
	}
	in := input{}
	repairable, err := s.repairable(ctx, broken)
	if err == nil && repairable {
		if err = checkRepair(req, s.Limits); err == nil {
			in, err = s.repairedInput(ctx, broken, req)
		}
	}
	if err != nil {
		return nil, err
	}
	c := &buildCreation{
		Service: s, policy: previewd.PolicySupersede, build: s.newBuild(broken.ProjectID, in, req.Caller), key: key,
		repairs: broken, view: s.queue(ctx),
	}
	c.build.Repairs, c.key.ResourceID = broken.ID, c.build.ID
	return c.create(ctx)
}

// repairable reports whether a repair may succeed. When it may not nothing is read
// or written for it; the transaction refuses it, and stores that with its key.
func (s *Service) repairable(ctx context.Context, broken *store.Build) (bool, error) {
	newest, err := s.Store.NewestBuild(ctx, broken.ProjectID)
	return broken.Status == previewd.BuildFailed && newest == broken.Seq, err
}

// repairedBefore answers for a build that is not found: a key goes on answering
// when its project is deleted.
func (s *Service) repairedBefore(ctx context.Context, key store.Key, missing error) (*previewd.Build, error) {
	if key.Key == "" || previewd.ErrorCode(missing) != previewd.CodeNotFound {
		return nil, missing
	}
	stored, err := s.Store.FindKey(ctx, key.Principal, key.Key)
	if err != nil {
		return nil, err
	}
	if stored == nil {
		return nil, missing
	}
	c := &buildCreation{Service: s, key: key}
	return c.replay(ctx, stored)
}

// checkRepair refuses changes that can be no tree's, before one is read.
func checkRepair(req previewd.RepairBuildRequest, limits Limits) error {
	if len(req.TemplateFiles) == 0 && len(req.Remove) == 0 {
		return invalid("There is nothing to repair with: give templateFiles, or paths to remove.", "templateFiles")
	}
	if err := checkFiles(req.TemplateFiles, limits); err != nil {
		return err
	}
	for _, name := range req.Remove {
		if _, both := req.TemplateFiles[name]; both {
			return invalid("A path is to be changed and removed: leave one out.", clipText(name, 200))
		}
	}
	return nil
}

// repairedInput stores the failed build's tree with the changes.
func (s *Service) repairedInput(ctx context.Context, broken *store.Build, req previewd.RepairBuildRequest) (input, error) {
	tree, err := s.readTree(ctx, broken.Source.Digest)
	if err != nil {
		return input{}, err
	}
	changed := len(req.Remove) > 0
	for _, name := range req.Remove {
		if _, there := tree[name]; !there {
			return input{}, invalid("A path to remove is not in the build's tree.", clipText(name, 200))
		}
		delete(tree, name)
	}
	for name, content := range req.TemplateFiles {
		was, there := tree[name]
		changed = changed || !there || !bytes.Equal(was, content)
	}
	if !changed {
		return input{}, invalid("The files are those of the build that failed: change something.", "templateFiles")
	}
	maps.Copy(tree, req.TemplateFiles)
	if len(tree) == 0 {
		return input{}, invalid("The repair removes every file: there is nothing to build.", "remove")
	}
	if err := checkFiles(tree, s.Limits); err != nil {
		return input{}, err
	}
	in := input{prompt: broken.Prompt, template: broken.Template, metadata: broken.Metadata}
	if req.Prompt != "" {
		in.prompt = req.Prompt
	}
	in.source, err = s.storeTree(ctx, tree)
	return in, err
}

// checkRepairs refuses a repair of a build that has not failed, or that is not the
// project's newest any more. The project is locked.
func (c *buildCreation) checkRepairs(ctx context.Context, tx *store.DB) error {
	if c.repairs == nil {
		return nil
	}
	if c.repairs.Status != previewd.BuildFailed {
		return notFailed(c.repairs)
	}
	newest, err := tx.NewestBuild(ctx, c.build.ProjectID)
	if err != nil || newest == c.repairs.Seq {
		return err
	}
	return &previewd.Error{
		Code:    previewd.CodeBuildOutdated,
		Message: "The project has a newer build, whose changes this repair would lose: repair that one if it has failed too, or create a build with the whole tree.",
		Details: "build " + c.build.Repairs,
	}
}

func notFailed(b *store.Build) error {
	e := &previewd.Error{Code: previewd.CodeNotFailed, Message: "The build has not failed: it is " + string(b.Status) + ".", Details: "build " + b.ID}
	if !b.Status.Terminal() {
		e.Message = "The build has not failed, or not yet: wait until it is over, and send a new request."
	}
	return e
}

// changedPaths lists what differs between two trees, sorted.
func changedPaths(a, b previewd.Files) []string {
	names := map[string]bool{}
	for name, content := range a {
		if other, there := b[name]; !there || !bytes.Equal(content, other) {
			names[name] = true
		}
	}
	for name := range b {
		if _, there := a[name]; !there {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// clipText cuts text to a size for an answer.
func clipText(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}
