package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/errgroup"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/detect"
)

// publish stores the site, precompressed, and last its manifest.
func (j *job) publish(ctx context.Context) (previewd.Digest, error) {
	began := time.Now()
	root, part := j.sourceRoot, partOfSite
	switch {
	case j.site != nil:
		root = j.site
		if j.siteDir != "." {
			part = partOfOutput
		}
	case j.result.Built:
		out, err := os.OpenRoot(j.out())
		if err != nil {
			return "", fmt.Errorf("cannot open the site: %w", err)
		}
		defer out.Close()
		root, part = out, func(string) bool { return true }
	}
	names, err := j.listSite(ctx, root.FS(), part)
	if err != nil {
		return "", err
	}
	for _, name := range j.result.Immutable {
		j.immutable[name] = true
	}
	manifest := previewd.Manifest{Files: make([]previewd.ManifestFile, len(names))}
	search := j.newSearch()
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(4) // syncing waits for the disk, compressing for a CPU
	for i, name := range names {
		group.Go(func() (err error) {
			search.look(groupCtx, root, name)
			manifest.Files[i], err = j.store(groupCtx, root, name)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return "", err
	}
	if slices.Contains(names, j.result.Fallback) {
		manifest.Fallback = j.result.Fallback
	}
	digest, err := artifact.PutManifest(ctx, j.Artifacts, manifest)
	j.log.printf("published %d files, %.1f kB, in %d ms", len(names), float64(manifest.Size())/1000, time.Since(began).Milliseconds())
	return digest, err
}

// partOfSite reports whether a file of a static tree is served: all but what
// configures the build and what authors hide.
func partOfSite(name string) bool {
	if name == detect.ConfigFile || name == "_redirects" {
		return false
	}
	for segment := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(segment, ".") && segment != ".well-known" || segment == "node_modules" {
			return false
		}
	}
	return true
}

// partOfOutput reports whether a file that a build has written is served: all but
// what holds secrets by custom.
func partOfOutput(name string) bool {
	for segment := range strings.SplitSeq(name, "/") {
		if segment == ".git" || strings.HasPrefix(segment, ".env") {
			return false
		}
	}
	return true
}

// Bounds on the names of a site's files.
const (
	maxSiteDepth = 32
	maxSitePath  = 1024 // bytes
)

func (j *job) listSite(ctx context.Context, fsys fs.FS, part func(string) bool) ([]string, error) {
	var names []string
	var total int64
	folders := 0
	unsafePath := func(name, message string) error {
		return &failedError{&previewd.Failure{
			Class: previewd.FailureUser, Code: previewd.FailUnsafePath, Step: previewd.StepPublish,
			File: clip(strings.Map(printable, strings.ToValidUTF8(name, "\uFFFD")), maxSitePath), Message: message,
		}}
	}
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, fs.ErrPermission):
			return unsafePath(name, "The site holds something that may not be read.")
		case !utf8.ValidString(name):
			return unsafePath(name, "The site holds a name that is not UTF-8.")
		case err != nil:
			return err
		case len(name) > maxSitePath || strings.Count(name, "/") >= maxSiteDepth:
			return unsafePath(name, fmt.Sprintf("The site holds a path of more than %d folders or %d bytes.", maxSiteDepth, maxSitePath))
		case entry.IsDir():
			if name != "." && !part(name+"/") {
				return fs.SkipDir
			}
			folders++
		case !part(name):
			return nil
		case !entry.Type().IsRegular():
			return unsafePath(name, "The site holds something that is no regular file.")
		}
		if folders > j.MaxFiles {
			return j.tooLarge()
		}
		if entry.IsDir() {
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		names = append(names, name)
		total += info.Size()
		if len(names) > j.MaxFiles || total > j.MaxBytes {
			return j.tooLarge()
		}
		return nil
	})
	return names, err
}

func (j *job) tooLarge() error {
	return &failedError{&previewd.Failure{
		Class: previewd.FailureUser, Code: previewd.FailOutputTooLarge, Step: previewd.StepPublish,
		Message: fmt.Sprintf("The site is larger than %d files or %d MB.", j.MaxFiles, j.MaxBytes>>20),
	}}
}

// maxCompress bounds what is compressed, and held in memory for it.
const maxCompress = 16 << 20

func (j *job) store(ctx context.Context, root *os.Root, name string) (previewd.ManifestFile, error) {
	file := previewd.ManifestFile{Path: name, Immutable: j.immutable[name]}
	f, err := root.Open(name)
	if err != nil {
		return file, fmt.Errorf("cannot open %s: %w", name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return file, fmt.Errorf("cannot read %s: %w", name, err)
	}
	if info.Size() > maxCompress || !compressible(name) || info.Size() < 512 {
		file.Blob, err = j.Artifacts.Put(ctx, f)
		return file, err
	}
	content, err := io.ReadAll(f)
	if err != nil {
		return file, fmt.Errorf("cannot read %s: %w", name, err)
	}
	if file.Blob, err = j.Artifacts.PutBytes(ctx, content); err != nil {
		return file, err
	}
	if file.Gzip, err = j.storeCompressed(ctx, content, gzipped); err != nil {
		return file, err
	}
	file.Brotli, err = j.storeCompressed(ctx, content, brotlied)
	return file, err
}

// storeCompressed returns nil when compressing saves less than a tenth.
func (j *job) storeCompressed(ctx context.Context, content []byte, compress func([]byte) ([]byte, error)) (*previewd.Blob, error) {
	small, err := compress(content)
	if err != nil || len(small) > len(content)*9/10 {
		return nil, err
	}
	blob, err := j.Artifacts.PutBytes(ctx, small)
	return &blob, err
}

func gzipped(content []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	return finish(w, content, &out)
}

// Level 6 of 11: the last one that costs less than the network saves on a
// site that is looked at once.
func brotlied(content []byte) ([]byte, error) {
	var out bytes.Buffer
	return finish(brotli.NewWriterLevel(&out, 6), content, &out)
}

func finish(w io.WriteCloser, content []byte, out *bytes.Buffer) ([]byte, error) {
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	err := w.Close()
	return out.Bytes(), err
}

var compressibleExt = strings.Fields(`.html .htm .css .js .mjs .cjs .json .map .svg .txt .xml .md .csv .ico .wasm
	.webmanifest .ttf .otf .eot .vtt .rss .atom .geojson .topojson .yaml .yml`)

func compressible(name string) bool {
	return slices.Contains(compressibleExt, strings.ToLower(path.Ext(name)))
}
