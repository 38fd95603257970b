package container

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const (
	imageRepository = "previewd-toolchain"
	// labelRoot is on images, with the folder that they were made of.
	labelRoot = "previewd.toolchain"
)

// rootImage is the image of a root file system.
type rootImage struct {
	name string
	once bool // for one container: it goes with that
}

// settled is how a toolchain's folder is named once nothing in it changes any more:
// after what is in it.
var settled = regexp.MustCompile(`^[0-9a-f]{32}$`)

// image returns the image of a root file system, and makes it if it is not there.
// What has no name of its own yet gets an image of its own each time.
func (d *dockerBackend) image(ctx context.Context, root string) (rootImage, error) {
	tag := filepath.Base(root)
	if !settled.MatchString(tag) {
		tag = "once-" + strings.ToLower(rand.Text())
		image := rootImage{imageRepository + ":" + tag, true}
		return image, d.makeImage(ctx, root, tag)
	}
	image := rootImage{imageRepository + ":" + tag, false}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.images[root] {
		return image, nil
	}
	there, err := d.engine.hasImage(ctx, image.name)
	if err == nil && !there {
		err = d.makeImage(ctx, root, tag)
	}
	if err != nil {
		return rootImage{}, err
	}
	d.images[root] = true
	return image, nil
}

func (d *dockerBackend) makeImage(ctx context.Context, root, tag string) error {
	read, write := io.Pipe()
	go func() { write.CloseWithError(packRoot(write, root)) }()
	defer read.Close()
	// A label's text is read like a shell's word: an escaped path has nothing of that.
	return d.engine.importImage(ctx, imageRepository+":"+tag, labelRoot+"="+url.QueryEscape(root), read)
}

// forget has an image looked for again.
func (d *dockerBackend) forget(root string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.images, root)
}

// sweepImages removes the images of folders that are not there any more. An image
// that anything runs of stays.
func (d *dockerBackend) sweepImages(ctx context.Context) error {
	images, err := d.engine.images(ctx, labelRoot)
	for _, image := range images {
		root, unreadable := url.QueryUnescape(image.Labels[labelRoot])
		if unreadable != nil || !filepath.IsAbs(root) {
			continue
		}
		if _, gone := os.Stat(root); !errors.Is(gone, fs.ErrNotExist) {
			continue
		}
		for _, name := range image.RepoTags {
			if strings.HasPrefix(name, imageRepository+":") {
				err = errors.Join(err, d.engine.removeImage(ctx, name))
			}
		}
	}
	return err
}

// removeImage removes the image that goes with a container.
func (m *dockerMachine) removeImage() {
	if m.image == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	_ = m.engine.removeImage(ctx, m.image) // or the sweep at the next start
}

// packRoot writes a root file system as a tar in which all is root's.
func packRoot(w io.Writer, root string) error {
	archive := tar.NewWriter(w)
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, name)
		if err != nil || below == "." {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		header := &tar.Header{Name: filepath.ToSlash(below), Mode: int64(info.Mode().Perm()), ModTime: time.Unix(0, 0)}
		switch entry.Type() {
		case fs.ModeDir:
			header.Typeflag = tar.TypeDir
			header.Name += "/"
		case fs.ModeSymlink:
			header.Typeflag = tar.TypeSymlink
			header.Linkname, err = os.Readlink(name)
		case 0:
			header.Typeflag, header.Size = tar.TypeReg, info.Size()
		default:
			return nil
		}
		if err == nil {
			err = archive.WriteHeader(header)
		}
		if err != nil || header.Typeflag != tar.TypeReg {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(archive, f)
		return err
	})
	return errors.Join(err, archive.Close())
}
