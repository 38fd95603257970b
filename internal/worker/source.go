package worker

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
)

// input is a checked request: everything that a build is made from.
type input struct {
	prompt   string
	template string
	metadata string // canonical JSON (RFC 8785)
	files    string // digest of the files that were sent
	source   previewd.Source
}

// prepareInput checks what a build is made from and stores the tree. Storing
// comes before the transaction, so that no file is written inside one; a tree
// whose transaction never commits is swept.
func (s *Service) prepareInput(ctx context.Context, prompt string, files previewd.Files, raw map[string]any) (input, error) {
	if err := checkText("prompt", prompt, s.Limits.PromptBytes); err != nil {
		return input{}, err
	}
	meta, text, err := parseMetadata(raw, s.Limits.MetadataBytes)
	if err != nil {
		return input{}, err
	}
	tree, err := s.mergeTemplate(meta.Template, prompt, files)
	if err != nil {
		return input{}, err
	}
	if err := checkFiles(tree, s.Limits); err != nil {
		return input{}, err
	}
	source, err := s.storeTree(ctx, tree)
	return input{prompt: prompt, template: meta.Template, metadata: text, files: digestFiles(files), source: source}, err
}

// storeTree stores a tree, once for all that are equal.
func (s *Service) storeTree(ctx context.Context, tree previewd.Files) (previewd.Source, error) {
	pack, err := packTree(tree)
	if err != nil {
		return previewd.Source{}, err
	}
	if err := s.checkRoom(ctx, pack); err != nil {
		return previewd.Source{}, err
	}
	blob, err := s.Artifacts.PutBytes(ctx, pack)
	if err == nil {
		err = fault.Point("source.stored")
	}
	return previewd.Source{Digest: blob.Digest, Files: len(tree), Bytes: tree.Size()}, err
}

// checkRoom refuses what is new while the disk has no room for more. A request
// that is repeated brings nothing new, and gets its answer.
func (s *Service) checkRoom(ctx context.Context, pack []byte) error {
	full := s.Room()
	if full == nil {
		return nil
	}
	there, err := s.Artifacts.Has(ctx, previewd.Blob{Digest: previewd.DigestOf(pack), Size: int64(len(pack))})
	if err == nil && !there {
		err = full
	}
	return err
}

// readTree returns a tree that storeTree has stored.
func (s *Service) readTree(ctx context.Context, digest previewd.Digest) (previewd.Files, error) {
	pack, err := s.Artifacts.Open(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("cannot open the source %s: %v", digest, err) //nolint:errorlint // that it is gone is no 404 of whoever asks
	}
	defer pack.Close()
	tree := previewd.Files{}
	archive := tar.NewReader(bufio.NewReaderSize(pack, 64<<10))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return tree, nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			tree[header.Name], err = io.ReadAll(archive)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the source %s: %w", digest, err)
		}
	}
}

// digestFiles covers the files that were sent, and not the template below them,
// which can be another after an upgrade: sha256 over path, size and sha256 of
// each, sorted by path.
func digestFiles(files previewd.Files) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%q %d %s\n", name, len(files[name]), previewd.DigestOf(files[name]))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// mergeTemplate lays the request's files over the template's. A template finds
// the prompt in project.json, as data: text of a stranger never becomes code.
func (s *Service) mergeTemplate(name, prompt string, files previewd.Files) (previewd.Files, error) {
	if name == "" {
		if len(files) == 0 {
			return nil, invalid("There is nothing to build: give templateFiles, or name a template in metadata.template.",
				"templates: "+strings.Join(s.templateNames(), ", "))
		}
		return files, nil
	}
	template, err := s.findTemplate(name)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(map[string]string{"prompt": prompt, "template": name})
	if err != nil {
		return nil, err
	}
	tree := maps.Clone(template.files)
	tree["project.json"] = data
	maps.Copy(tree, files)
	return tree, nil
}

// packTree writes a tree as a tar that is the same for the same files, so that
// equal trees are stored once.
func packTree(files previewd.Files) ([]byte, error) {
	var pack bytes.Buffer
	pack.Grow(int(files.Size()) + 1024*(len(files)+2))
	w := tar.NewWriter(&pack)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: name, Size: int64(len(files[name])), Mode: 0o644,
			ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(files[name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return pack.Bytes(), nil
}
