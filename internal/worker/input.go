package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/detect"
)

// Limits bound what a request may carry.
type Limits struct {
	Files         int   // how many
	TotalBytes    int64 // of all files together
	PromptBytes   int
	MetadataBytes int // as JSON
}

// DefaultLimits is what Config.Limits means when it is zero.
var DefaultLimits = Limits{
	Files: previewd.MaxFiles, TotalBytes: previewd.MaxTreeBytes, PromptBytes: previewd.MaxPromptBytes, MetadataBytes: previewd.MaxMetadataBytes,
}

// Limits of a path: what every file system that a tree may meet can hold.
const (
	maxPathBytes    = 1024
	maxSegmentBytes = 255
	maxDepth        = 32
)

func invalid(message, details string) error {
	return &previewd.Error{Code: previewd.CodeInvalid, Message: message, Details: details}
}

// checkText refuses what a database or a log cannot hold.
func checkText(field, s string, limit int) error {
	switch {
	case len(s) > limit:
		return &previewd.Error{
			Code:    previewd.CodeTooLarge,
			Message: fmt.Sprintf("%s is longer than %d bytes.", field, limit),
			Details: fmt.Sprintf("%s: %d bytes", field, len(s)),
		}
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
		return invalid(field+" must be UTF-8 text without NUL.", field)
	}
	return nil
}

func checkUserID(id string) error {
	if id == "" {
		return invalid("userId is missing: say who the project belongs to.", "userId")
	}
	if strings.ContainsFunc(id, unicode.IsControl) {
		return invalid("userId must not hold control characters.", "userId")
	}
	return checkText("userId", id, previewd.MaxUserID)
}

// checkFiles refuses a tree that could mean different files on different
// systems, or be written outside its folder.
func checkFiles(files previewd.Files, limits Limits) error {
	if len(files) > limits.Files {
		return &previewd.Error{
			Code:    previewd.CodeTooLarge,
			Message: fmt.Sprintf("templateFiles holds more than %d files.", limits.Files),
			Details: fmt.Sprintf("%d files", len(files)),
		}
	}
	if size := files.Size(); size > limits.TotalBytes {
		return &previewd.Error{
			Code:    previewd.CodeTooLarge,
			Message: fmt.Sprintf("templateFiles holds more than %d bytes.", limits.TotalBytes),
			Details: fmt.Sprintf("%d bytes", size),
		}
	}
	fold := cases.Fold()
	seen := make(map[string]string, len(files)) // folded path of a file or folder → path as first seen
	for name := range files {
		if why := checkPath(name); why != "" {
			return badPath(name, why)
		}
		if other, taken := seen[fold.String(name)]; taken {
			return badPath(name, fmt.Sprintf("is the same file as %q where case does not count", other))
		}
		seen[fold.String(name)] = name
	}
	for name := range files {
		for dir, more := parent(name); more; dir, more = parent(dir) {
			if file, taken := seen[fold.String(dir)]; taken {
				return badPath(name, fmt.Sprintf("needs a folder where %q is a file", file))
			}
		}
	}
	return nil
}

func badPath(name, why string) error {
	if len(name) > 200 {
		name = strings.ToValidUTF8(name[:200], "") + "…"
	}
	return &previewd.Error{
		Code: previewd.CodeInvalidPath, Message: "A path in templateFiles is not allowed.",
		Details: fmt.Sprintf("templateFiles[%q] %s", name, why),
	}
}

// parent returns the folder that a path lies in, false at the top.
func parent(name string) (dir string, found bool) {
	i := strings.LastIndexByte(name, '/')
	return name[:max(i, 0)], i >= 0
}

// Names that Windows takes for devices, whatever their extension.
var reserved = regexp.MustCompile(`(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$`)

// checkPath returns why a path is not allowed, or "".
func checkPath(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > maxPathBytes:
		return fmt.Sprintf("is longer than %d bytes", maxPathBytes)
	case !utf8.ValidString(name):
		return "is not UTF-8"
	case !norm.NFC.IsNormalString(name):
		return "is not in Unicode normal form C"
	case strings.HasPrefix(name, "/"):
		return "begins with a slash; paths are relative to the project"
	}
	segments := strings.Split(name, "/")
	if len(segments) > maxDepth {
		return fmt.Sprintf("is deeper than %d folders", maxDepth)
	}
	for _, segment := range segments {
		if why := checkSegment(segment); why != "" {
			return why
		}
	}
	return ""
}

func checkSegment(segment string) string {
	switch {
	case segment == "":
		return "has an empty segment"
	case segment == "." || segment == "..":
		return fmt.Sprintf("has a segment %q", segment)
	case len(segment) > maxSegmentBytes:
		return fmt.Sprintf("has a segment longer than %d bytes", maxSegmentBytes)
	case strings.ContainsFunc(segment, unicode.IsControl):
		return "holds a control character"
	case strings.ContainsAny(segment, `\:*?"<>|`):
		return `holds one of \ : * ? " < > |`
	case strings.HasSuffix(segment, ".") || strings.HasSuffix(segment, " "):
		return "has a segment that ends in a dot or a space"
	case reserved.MatchString(segment):
		return fmt.Sprintf("has the reserved name %q", segment)
	}
	return ""
}

// metadata is what the worker reads of a request's metadata. Other members are
// stored and given back.
type metadata struct {
	Template string            `json:"template"`
	Build    json.RawMessage   `json:"build"`
	env      map[string]string // of Build
}

var envName = regexp.MustCompile(`^VITE_[A-Za-z0-9_]{1,100}$`)

// parseMetadata returns what the worker reads of metadata, and all of it as JSON.
func parseMetadata(raw map[string]any, limit int) (metadata, string, error) {
	if raw == nil {
		raw = map[string]any{}
	}
	text, err := json.Marshal(raw)
	canonical := jsontext.Value(text)
	if err = errors.Join(err, canonical.Canonicalize()); err != nil {
		return metadata{}, "", invalid("metadata must be JSON.", "metadata")
	}
	text = canonical
	if err := checkText("metadata", string(text), limit); err != nil {
		return metadata{}, "", err
	}
	m, err := decodeMetadata(string(text))
	if err != nil {
		return m, "", invalid("metadata.template must be a string, metadata.build.env an object of strings.", err.Error())
	}
	if m.Build != nil {
		if wrong := detect.CheckRequest(m.Build); wrong != nil {
			return m, "", invalid(wrong.Message, wrong.Hint)
		}
	}
	for name := range m.env {
		if !envName.MatchString(name) {
			return m, "", invalid("A name in metadata.build.env must begin with VITE_ and hold letters, digits and _ only.", name)
		}
	}
	return m, string(text), nil
}

func decodeMetadata(text string) (m metadata, err error) {
	err = json.Unmarshal([]byte(text), &m)
	if err != nil || m.Build == nil {
		return m, err
	}
	var build struct {
		Env map[string]string `json:"env"`
	}
	err = json.Unmarshal(m.Build, &build)
	m.env = build.Env
	return m, err
}
