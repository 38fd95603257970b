package previewd

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"unicode/utf8"
)

// What a request may carry.
const (
	MaxFiles         = 10_000
	MaxTreeBytes     = 50 << 20 // of all files together
	MaxPromptBytes   = 32 << 10
	MaxMetadataBytes = 16 << 10 // as JSON
)

// Files is a tree of files: content by path, "/" between segments. On the wire
// a value is one of
//   - a string: UTF-8 text;
//   - {"content": "…", "encoding": "utf-8" | "base64"}: a file; encoding may be
//     left out and is then utf-8;
//   - any other JSON, under a path that ends in .json: that JSON, as a file.
//
// Paths are checked by the worker, not here.
type Files map[string][]byte

// Size returns the bytes of all files.
func (f Files) Size() int64 {
	var n int64
	for _, content := range f {
		n += int64(len(content))
	}
	return n
}

// MarshalJSON writes text as strings and everything else as base64.
func (f Files) MarshalJSON() ([]byte, error) {
	wire := make(map[string]any, len(f))
	for name, content := range f {
		if utf8.Valid(content) {
			wire[name] = string(content)
			continue
		}
		wire[name] = wireFile{Content: base64.StdEncoding.EncodeToString(content), Encoding: "base64"}
	}
	return json.Marshal(wire)
}

// UnmarshalJSON reads the forms that Files describes. Its error is an *Error
// with CodeInvalid whose Details name the path.
func (f *Files) UnmarshalJSON(data []byte) error {
	var wire map[string]json.RawMessage
	if err := json.Unmarshal(data, &wire); err != nil {
		return &Error{Code: CodeInvalid, Message: "templateFiles must be an object of path to content.", Err: err}
	}
	files := make(Files, len(wire))
	for name, raw := range wire {
		content, err := decodeFile(name, raw)
		if err != nil {
			return &Error{
				Code:    CodeInvalid,
				Message: "A value of templateFiles must be a string, {content, encoding}, or JSON under a path that ends in .json.",
				Details: fmt.Sprintf("templateFiles[%q]: %v", name, err),
			}
		}
		files[name] = content
	}
	*f = files
	return nil
}

type wireFile struct {
	Content  string `json:"content"`
	Encoding string `json:"encoding,omitempty"`
}

func decodeFile(name string, raw json.RawMessage) ([]byte, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil && raw[0] == '"' {
		return []byte(text), nil
	}
	if file, ok := fileObject(raw); ok {
		switch file.Encoding {
		case "", "utf-8":
			return []byte(file.Content), nil
		case "base64":
			content, err := base64.StdEncoding.DecodeString(file.Content)
			if err != nil {
				return nil, fmt.Errorf("cannot decode base64: %w", err)
			}
			return content, nil
		}
		return nil, fmt.Errorf("encoding %q is neither utf-8 nor base64", file.Encoding)
	}
	if path.Ext(name) == ".json" {
		return raw, nil
	}
	return nil, errors.New("is neither text nor a file object")
}

// fileObject reads raw as a file: an object with a string "content" and no
// other member than "encoding". Any other object is plain JSON.
func fileObject(raw json.RawMessage) (wireFile, bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return wireFile{}, false
	}
	for name := range members {
		if name != "content" && name != "encoding" {
			return wireFile{}, false
		}
	}
	var file wireFile
	if _, ok := members["content"]; !ok || json.Unmarshal(raw, &file) != nil {
		return wireFile{}, false
	}
	return file, true
}
