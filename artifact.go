package previewd

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
)

// Digest is a sha256 in lower-case hex, 64 bytes of text.
type Digest string

// DigestOf returns the digest of b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest(hex.EncodeToString(sum[:]))
}

// Valid reports whether d has the form of a digest.
func (d Digest) Valid() bool {
	raw, err := hex.DecodeString(string(d))
	return err == nil && len(raw) == sha256.Size && strings.ToLower(string(d)) == string(d)
}

// Blob is one stored run of bytes, named by its content.
type Blob struct {
	Digest Digest `json:"digest"`
	Size   int64  `json:"size"`
}

// Manifest lists the files of a version. It is stored like any other blob, as
// the last write of a build; its own digest names the version's content.
type Manifest struct {
	Format   int            `json:"format"`             // 1
	Fallback string         `json:"fallback,omitempty"` // file that answers unknown paths of a single-page app
	Files    []ManifestFile `json:"files"`              // sorted by path, each path once
}

// ManifestFile is one file of a version and its precompressed forms.
type ManifestFile struct {
	Path      string `json:"path"` // relative, "/" between segments
	Blob             // the file as it is
	Gzip      *Blob  `json:"gzip,omitempty"`
	Brotli    *Blob  `json:"br,omitempty"`
	Immutable bool   `json:"immutable,omitempty"` // the name holds a hash of the content
}

// Encode returns the canonical JSON of the manifest: files sorted by path.
func (m Manifest) Encode() ([]byte, error) {
	m.Files = slices.SortedFunc(slices.Values(m.Files), func(a, b ManifestFile) int {
		return strings.Compare(a.Path, b.Path)
	})
	return json.Marshal(m)
}

// Size returns the bytes of all files as they are, without compressed forms.
func (m Manifest) Size() int64 {
	var n int64
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// Blobs returns every blob that the manifest refers to.
func (m Manifest) Blobs() []Blob {
	var blobs []Blob
	for _, f := range m.Files {
		blobs = append(blobs, f.Blob)
		if f.Gzip != nil {
			blobs = append(blobs, *f.Gzip)
		}
		if f.Brotli != nil {
			blobs = append(blobs, *f.Brotli)
		}
	}
	return blobs
}
