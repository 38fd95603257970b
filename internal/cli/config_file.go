package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

// strictYAML reads a config file: the names of serve's flags, without dashes
// in front. A name that no flag has is an error; it would else be a setting
// that silently does nothing.
func strictYAML(r io.Reader) (kong.Resolver, error) {
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	settings := map[string]any{}
	documents := yaml.NewDecoder(bytes.NewReader(raw))
	if err := documents.Decode(&settings); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("cannot read the config file: %w", err)
	}
	if err := documents.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("cannot read the config file: it holds a second document, after ---")
	}
	return &yamlResolver{settings}, nil
}

type yamlResolver struct{ settings map[string]any }

// Validate implements kong.Resolver.
func (y *yamlResolver) Validate(application *kong.Application) error {
	known := map[string]bool{}
	for _, command := range application.Children {
		if command.Name != "serve" {
			continue
		}
		for _, flag := range command.Flags {
			known[flag.Name] = flag.Name != "config"
		}
	}
	for _, name := range slices.Sorted(maps.Keys(y.settings)) {
		if !known[name] {
			delete(known, "config")
			return fmt.Errorf("the config file sets %q, which is no setting; there are: %s", name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
	}
	return nil
}

// Resolve implements kong.Resolver.
func (y *yamlResolver) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	return y.settings[flag.Name], nil
}
