package runner

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync/atomic"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/redact"
)

// pagePrefix begins the names of variables that are there to be put into pages,
// where everybody reads them.
const pagePrefix = "VITE_"

func inPages(name string) bool { return strings.HasPrefix(name, pagePrefix) }

// pageEnv is what the child may put into pages: never a secret.
func (j *job) pageEnv() map[string]string {
	env := map[string]string{}
	for _, v := range j.claim.Vars {
		if inPages(v.Name) && !v.Secret && v.In(previewd.EnvBuild) {
			env[v.Name] = string(v.Value)
		}
	}
	for name, value := range j.claim.Env {
		env[name] = value
	}
	return env
}

// vars is what a command is given of the project's variables, beside the build's
// own. Whoever installs packages for later builds gets none: nothing of a project
// may stay with them.
func (p *packagesBuild) vars() []string {
	scope := previewd.EnvBuild
	if p.step == previewd.StepInstall {
		scope = previewd.EnvInstall
	}
	var env []string
	for _, v := range p.claim.Vars {
		_, own := p.claim.Env[v.Name]
		if withheld := v.Secret && inPages(v.Name); !p.keeping && !own && !withheld && v.In(scope) {
			env = append(env, v.Name+"="+string(v.Value))
		}
	}
	return env
}

// tellVars logs which variables there are.
func (j *job) tellVars() {
	var names []string
	for _, v := range j.claim.Vars {
		name := v.Name
		if v.Secret {
			name += " (secret)"
		}
		names = append(names, name)
		if v.Secret && inPages(v.Name) {
			j.log.printf("note: %s is a secret, so no page shows it and no command is given it", v.Name)
		}
	}
	if len(names) > 0 {
		j.log.printf("variables: %s", clip(strings.Join(names, ", "), 1000))
	}
}

// hiddenValues returns what neither the log nor a failure may say.
func hiddenValues(claim *previewd.Claim) *redact.Set {
	var values []string
	for _, v := range claim.Vars {
		if v.Secret {
			values = append(values, string(v.Value))
		}
	}
	return redact.New(values)
}

// hide returns text of a build without secrets.
func (l *buildLog) hide(text string) string {
	if l.hidden == nil {
		return text
	}
	return l.hidden.Text(strings.Map(previewd.Harmless, text))
}

// hideIn returns a failure without secrets. What is cut to size comes after it: half
// a secret would not be found.
func (l *buildLog) hideIn(f *previewd.Failure) *previewd.Failure {
	if f == nil {
		return nil
	}
	out := *f
	for _, text := range []*string{&out.Message, &out.Hint, &out.File, &out.Excerpt} {
		*text = l.hide(*text)
	}
	return &out
}

func (l *buildLog) hideEach(list []string) []string {
	out := make([]string, len(list))
	for i, text := range list {
		out[i] = l.hide(text)
	}
	return out
}

// Bounds on the search of a site for secrets.
const maxSearch = 256 << 20 // bytes, each as often as there are secrets

// secretSearch looks for secrets in a site.
type secretSearch struct {
	*job
	spent atomic.Int64
	told  []atomic.Bool // of each variable
}

func (j *job) newSearch() *secretSearch {
	return &secretSearch{job: j, told: make([]atomic.Bool, len(j.claim.Vars))}
}

// look warns of each secret that a file shows as it is. It is best effort: a file
// that cannot be read fails the build elsewhere.
func (s *secretSearch) look(ctx context.Context, root *os.Root, name string) {
	if s.log.hidden == nil || !compressible(name) {
		return
	}
	info, err := root.Stat(name)
	if err != nil || info.Size() > maxCompress || s.spent.Load() > maxSearch {
		return
	}
	content, err := root.ReadFile(name)
	for i, v := range s.claim.Vars {
		if err != nil || ctx.Err() != nil || !v.Secret {
			continue
		}
		s.spent.Add(int64(len(content)))
		if bytes.Contains(content, []byte(v.Value)) && s.told[i].CompareAndSwap(false, true) {
			s.log.printf("warning: the site shows the value of the secret %s, in %s", v.Name, clip(name, 300))
		}
	}
}
