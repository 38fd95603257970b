package worker

import (
	"bytes"
	"context"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

// Bounds of a failure packet.
const (
	packetPaths   = 500
	packetFiles   = 12
	packetSource  = 64 << 10 // of all passages, in bytes
	passageSource = 24 << 10 // of one
	packetLog     = 6 << 10
	packetEarlier = 5
	packetChanged = 50

	maxPackets = 2 // at a time
)

// FindFailure implements previewd.Repairer.
func (s *Service) FindFailure(ctx context.Context, buildID string) (*previewd.FailurePacket, error) {
	if !previewd.IsID(buildID) {
		return nil, previewd.NotFound("build", buildID)
	}
	b, err := s.Store.FindBuild(ctx, buildID)
	if err != nil {
		return nil, err
	}
	if b.Status != previewd.BuildFailed || b.Failure == nil {
		return nil, notFailed(b)
	}
	newest, err := s.Store.NewestBuild(ctx, b.ProjectID)
	if err != nil {
		return nil, err
	}
	// A packet reads whole trees: of several at once others wait.
	select {
	case s.packets <- struct{}{}:
		defer func() { <-s.packets }()
	case <-ctx.Done():
		return nil, &previewd.Error{Code: previewd.CodeUnavailable, Message: "Other failures are being looked at: try again.", RetryAfter: 2 * time.Second}
	}
	tree, err := s.readTree(ctx, b.Source.Digest)
	if err != nil {
		return nil, err
	}
	p := &previewd.FailurePacket{
		BuildID: b.ID, ProjectID: b.ProjectID, Seq: b.Seq, ReferenceID: b.ReferenceID, Prompt: b.Prompt, Failure: *b.Failure,
		Tried:  previewd.Tried{Runner: b.Runner, Reason: b.Reason, Attempts: b.Attempt},
		Source: b.Source, Repairable: b.Seq == newest,
	}
	if p.Log, err = s.logEnd(ctx, b); err != nil {
		return nil, err
	}
	p.Paths = slices.Sorted(maps.Keys(tree))
	p.Files = passages(tree, p)
	p.Paths = p.Paths[:min(len(p.Paths), packetPaths)]
	p.Tried.Earlier, err = s.earlierRepairs(ctx, b, tree)
	return p, err
}

// logEnd returns the last whole lines of a log.
func (s *Service) logEnd(ctx context.Context, b *store.Build) (string, error) {
	from := max(0, b.LogBytes-packetLog)
	data, err := s.Store.ReadLog(ctx, b.ID, from, packetLog)
	if i := bytes.IndexByte(data, '\n'); from > 0 && i >= 0 {
		data = data[i+1:]
	}
	return string(data), err
}

// earlierRepairs walks back along what was repaired.
func (s *Service) earlierRepairs(ctx context.Context, b *store.Build, tree previewd.Files) ([]previewd.EarlierRepair, error) {
	list := []previewd.EarlierRepair{}
	for b.Repairs != "" && len(list) < packetEarlier {
		earlier, err := s.Store.FindBuild(ctx, b.Repairs)
		if err != nil {
			return nil, err
		}
		was, err := s.readTree(ctx, earlier.Source.Digest)
		if err != nil {
			return nil, err
		}
		changed := changedPaths(was, tree)
		e := previewd.EarlierRepair{BuildID: earlier.ID, Seq: earlier.Seq, Prompt: earlier.Prompt, Changed: changed[:min(len(changed), packetChanged)]}
		if f := earlier.Failure; f != nil {
			e.Code, e.Message, e.File, e.Line = f.Code, f.Message, f.File, f.Line
		}
		list = append(list, e)
		b, tree = earlier, was
	}
	return list, nil
}

// passages returns what of the tree the failure is about: the file that it names,
// files that its words name, and those that say how the tree is built.
func passages(tree previewd.Files, p *previewd.FailurePacket) []previewd.Passage {
	f := p.Failure
	lines := map[string]int{}
	var names []string
	add := func(name string) {
		if _, there := tree[name]; there && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if f.File != "" {
		lines[f.File] = f.Line
		add(f.File)
	}
	said := f.Message + "\n" + f.Excerpt
	for _, text := range []string{said, p.Log} {
		for _, name := range p.Paths {
			if len(name) > 3 && strings.Contains(text, name) {
				add(name)
			}
		}
		add("package.json") // after what the failure itself names, before what the log does
	}
	for _, name := range p.Paths {
		if configures(name) {
			add(name)
		}
	}
	list, left := []previewd.Passage{}, packetSource
	for _, name := range names {
		if len(list) == packetFiles || left == 0 {
			break
		}
		if passage, ok := passageOf(name, tree[name], lines[name], min(left, passageSource)); ok {
			list = append(list, passage)
			left -= len(passage.Content)
		}
	}
	return list
}

// configures reports whether a file of the tree's root says how it is built.
func configures(name string) bool {
	if strings.Contains(name, "/") {
		return false
	}
	ext := path.Ext(name)
	base := strings.TrimSuffix(name, ext)
	return name == "previewd.json" || name == "index.html" ||
		strings.HasPrefix(base, "tsconfig") && ext == ".json" ||
		strings.HasSuffix(base, ".config") && slices.Contains([]string{".js", ".mjs", ".cjs", ".ts", ".mts", ".cts"}, ext)
}

// passageOf returns the whole lines of a text file that fit, around a line; ok is
// false for what is no text, or when none fits.
func passageOf(name string, content []byte, line, limit int) (p previewd.Passage, ok bool) {
	if !utf8.Valid(content) || bytes.IndexByte(content, 0) >= 0 {
		return p, false
	}
	p = previewd.Passage{Path: name, FirstLine: 1, Bytes: len(content), Whole: true}
	if len(content) <= limit {
		p.Content = string(content)
		return p, true
	}
	at, number := lineAt(content, line)
	from, to := at, at
	p.FirstLine, p.Whole = number, false
	// Lines are taken from both sides in turn, for as long as they fit.
	for grown := true; grown; {
		grown = false
		if end := lineEnd(content, to); end > to && end-from <= limit {
			to, grown = end, true
		}
		if begin := lineBegin(content, from); to > at && begin < from && to-begin <= limit {
			from, grown = begin, true
			p.FirstLine--
		}
	}
	p.Content = string(content[from:to])
	return p, to > from
}

// lineAt returns where a line begins, or the last one, and its number.
func lineAt(content []byte, line int) (at, number int) {
	for number = 1; number < line; number++ {
		end := bytes.IndexByte(content[at:], '\n')
		if end < 0 || at+end+1 == len(content) {
			break
		}
		at += end + 1
	}
	return at, number
}

// lineEnd returns where the line ends that begins at a place, its break included.
func lineEnd(content []byte, at int) int {
	if end := bytes.IndexByte(content[at:], '\n'); end >= 0 {
		return at + end + 1
	}
	return len(content)
}

// lineBegin returns where the line begins that ends at a place.
func lineBegin(content []byte, at int) int {
	if at == 0 {
		return 0
	}
	return bytes.LastIndexByte(content[:at-1], '\n') + 1
}
