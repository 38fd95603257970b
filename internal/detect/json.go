package detect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	maxDepth  = 32
	maxValues = 100_000
)

// document is JSON of strangers, read with limits.
type document struct {
	value   any      // map[string]any, []any, string, json.Number, bool, nil
	doubles []string // names that an object has twice; the last one counts, as in Node
	values  int
}

// parseJSON reads one JSON value. Names keep their case, unlike in
// encoding/json's structs: npm would not take "Scripts" for "scripts".
func parseJSON(raw []byte) (*document, error) {
	d := &document{}
	dec := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))))
	dec.UseNumber()
	var err error
	if d.value, err = d.parse(dec, 0); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it ends too early")
		}
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows its end")
	}
	return d, nil
}

func (d *document) parse(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("it is nested deeper than %d levels", maxDepth)
	}
	if d.values++; d.values > maxValues {
		return nil, fmt.Errorf("it holds more than %d values", maxValues)
	}
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for dec.More() {
			name, err := dec.Token()
			if err != nil {
				return nil, err
			}
			key, ok := name.(string)
			if !ok {
				return nil, errors.New("a name must be a string")
			}
			if _, double := object[key]; double && len(d.doubles) < 20 {
				d.doubles = append(d.doubles, key)
			}
			if object[key], err = d.parse(dec, depth+1); err != nil {
				return nil, err
			}
		}
		_, err = dec.Token()
		return object, err
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			item, err := d.parse(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		_, err = dec.Token()
		return list, err
	}
	return token, nil
}

// at follows names into objects and returns what is there, or nil.
func at(value any, names ...string) any {
	for _, name := range names {
		object, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = object[name]
	}
	return value
}

// textAt is at, for a string; "" for anything else.
func textAt(value any, names ...string) string {
	s, _ := at(value, names...).(string)
	return s
}

// textsAt is at, for an object of strings; other values are left out.
func textsAt(value any, names ...string) map[string]string {
	texts := map[string]string{}
	object, _ := at(value, names...).(map[string]any)
	for name, member := range object {
		if s, ok := member.(string); ok {
			texts[name] = s
		}
	}
	return texts
}

// listAt is at, for a list of strings; other items are left out.
func listAt(value any, names ...string) []string {
	var texts []string
	list, _ := at(value, names...).([]any)
	for _, item := range list {
		if s, ok := item.(string); ok {
			texts = append(texts, s)
		}
	}
	return texts
}

// oneOf joins names as a sentence lists them.
func oneOf(names []string, word string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(slices.Clone(names[:last]), ", ") + " " + word + " " + names[last]
}
