package worker_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
)

var testKey = bytes.Repeat([]byte{7}, worker.SecretsKeySize)

func withKey(key []byte) func(*worker.Config) {
	return func(c *worker.Config) {
		c.SecretsKey = func(bool) ([]byte, error) { return key, nil }
	}
}

// eachKeeper is each with a key for secrets.
func eachKeeper(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) { test(t, setup(t, db, withKey(testKey))) })
}

func (f *fixture) setEnv(projectID, name, value string, change ...func(*previewd.SetEnvRequest)) (*previewd.EnvVar, error) {
	req := previewd.SetEnvRequest{ProjectID: projectID, Name: name, Value: previewd.Hidden(value), Caller: caller}
	for _, c := range change {
		c(&req)
	}
	return f.SetEnv(f.t.Context(), req)
}

func asSecret(r *previewd.SetEnvRequest) { r.Secret = true }

func scoped(scopes ...previewd.EnvScope) func(*previewd.SetEnvRequest) {
	return func(r *previewd.SetEnvRequest) { r.Scopes = scopes }
}

func (f *fixture) keeps(v *previewd.EnvVar, err error) *previewd.EnvVar {
	f.t.Helper()
	require.NoError(f.t, err)
	return v
}

func TestEnvIsSetListedAndRemoved(t *testing.T) {
	eachKeeper(t, func(t *testing.T, f *fixture) {
		p := f.create()
		f.keeps(f.setEnv(p.ProjectID, "B_URL", "https://b.test"))
		v := f.keeps(f.setEnv(p.ProjectID, "TOKEN", "hunter2-hunter2", asSecret, scoped("build", "install", "build")))
		require.Nil(t, v.Value)
		f.keeps(f.setEnv(p.ProjectID, "A", ""))
		list, err := f.ListEnv(t.Context(), p.ProjectID)
		require.NoError(t, err)
		require.Len(t, list, 3)
		require.Equal(t, []any{"A", "", false, []previewd.EnvScope{"build"}}, []any{list[0].Name, *list[0].Value, list[0].Secret, list[0].Scopes})
		require.Equal(t, []any{"B_URL", "https://b.test"}, []any{list[1].Name, *list[1].Value})
		require.Equal(t, []any{"TOKEN", (*string)(nil), true, []previewd.EnvScope{"install", "build"}}, []any{list[2].Name, list[2].Value, list[2].Secret, list[2].Scopes})
		require.False(t, list[2].UpdatedAt.IsZero())

		_, err = f.setEnv(p.ProjectID, "TOKEN", "plain by mistake")
		require.Equal(t, previewd.CodeConflict, previewd.ErrorCode(err))
		require.ErrorContains(t, err, "remove it first")
		v = f.keeps(f.setEnv(p.ProjectID, "TOKEN", "hunter3-hunter3", asSecret))
		require.Equal(t, []previewd.EnvScope{"build"}, v.Scopes, "all of it is replaced")
		require.NoError(t, f.DeleteEnv(t.Context(), previewd.DeleteEnvRequest{ProjectID: p.ProjectID, Name: "TOKEN", Caller: caller}))
		f.keeps(f.setEnv(p.ProjectID, "TOKEN", "plain now"))
		remove := previewd.DeleteEnvRequest{ProjectID: p.ProjectID, Name: "A", Caller: caller}
		require.NoError(t, f.DeleteEnv(t.Context(), remove))
		require.NoError(t, f.DeleteEnv(t.Context(), remove), "again")
		list, err = f.ListEnv(t.Context(), p.ProjectID)
		require.NoError(t, err)
		require.Len(t, list, 2)
		require.Equal(t, "plain now", *list[1].Value)
	})
}

func TestEnvThatNoVariableCanBe(t *testing.T) {
	t.Parallel()
	f := setup(t, testkit.Open(t, testkit.Engines()[0].Config(t)), withKey(testKey))
	p := f.create()
	for _, name := range []string{
		"", "1A", "A-B", "A B", "Ä", "A\x00", "A=B", strings.Repeat("A", 129),
		"PATH", "path", "HOME", "NODE_OPTIONS", "npm_config_registry", "NPM_CONFIG_REGISTRY", "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "https_proxy", "HTTP_PROXY", "NO_PROXY",
		"all_proxy", "proxy", "BUN_CONFIG_REGISTRY", "pnpm_config_registry", "YARN_NPM_REGISTRY_SERVER", "COREPACK_HOME", "PREVIEWD_TOKEN", "BASH_ENV", "CI", "TMPDIR",
		"NO_UPDATE_NOTIFIER", "ASTRO_TELEMETRY_DISABLED", "NEXT_TELEMETRY_DISABLED",
	} {
		_, err := f.setEnv(p.ProjectID, name, "a value that is secret", asSecret)
		require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err), "%q", name)
		require.NotContains(t, err.Error(), "a value")
	}
	for value, code := range map[string]previewd.Code{
		"sh0rt!":                   previewd.CodeInvalid,
		"   1234567    \n":         previewd.CodeInvalid,
		"not \xff UTF-8 at all":    previewd.CodeInvalid,
		"has a \x00 in it":         previewd.CodeInvalid,
		strings.Repeat("x", 32769): previewd.CodeTooLarge,
	} {
		_, err := f.setEnv(p.ProjectID, "NAME", value, asSecret)
		require.Equal(t, code, previewd.ErrorCode(err), "%.20q", value)
		require.NotContains(t, err.Error(), strings.TrimSpace(value))
	}
	_, err := f.setEnv(p.ProjectID, "NAME", "value", scoped("run"))
	require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err))
	list, err := f.ListEnv(t.Context(), p.ProjectID)
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestEnvIsBounded(t *testing.T) {
	t.Parallel()
	f := setup(t, testkit.Open(t, testkit.Engines()[0].Config(t)), withKey(testKey))
	many, large := f.create(), f.create()
	for i := range previewd.MaxEnvVars {
		f.keeps(f.setEnv(many.ProjectID, fmt.Sprintf("V%d", i), "x"))
	}
	_, err := f.setEnv(many.ProjectID, "ONE_MORE", "x")
	require.Equal(t, previewd.CodeTooLarge, previewd.ErrorCode(err))
	f.keeps(f.setEnv(many.ProjectID, "V7", "another")) // in the place of one

	value := strings.Repeat("v", previewd.MaxEnvValueBytes-1)
	f.keeps(f.setEnv(large.ProjectID, "A", value, asSecret))
	f.keeps(f.setEnv(large.ProjectID, "B", value))
	_, err = f.setEnv(large.ProjectID, "C", "")
	require.Equal(t, previewd.CodeTooLarge, previewd.ErrorCode(err), "the names count")
	f.keeps(f.setEnv(large.ProjectID, "B", value[1:]))
	f.keeps(f.setEnv(large.ProjectID, "C", ""))
}

func TestEnvOfNoProject(t *testing.T) {
	eachKeeper(t, func(t *testing.T, f *fixture) {
		p := f.create()
		f.keeps(f.setEnv(p.ProjectID, "TOKEN", "hunter2-hunter2", asSecret))
		f.remove(p.ProjectID)
		for _, id := range []string{p.ProjectID, previewd.NewID(), "", "x"} {
			_, err := f.ListEnv(t.Context(), id)
			require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err), "%q", id)
			_, err = f.setEnv(id, "NAME", "value")
			require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err), "%q", id)
			err = f.DeleteEnv(t.Context(), previewd.DeleteEnvRequest{ProjectID: id, Name: "TOKEN", Caller: caller})
			require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err), "%q", id)
		}
		left, err := f.db.ListEnv(t.Context(), p.ProjectID)
		require.NoError(t, err)
		require.Empty(t, left, "its variables are gone with it")
	})
}

// Claims have the values; nothing that is stored has those of secrets.
func TestClaimsHaveTheEnv(t *testing.T) {
	eachKeeper(t, func(t *testing.T, f *fixture) {
		p := f.create()
		f.keeps(f.setEnv(p.ProjectID, "API_URL", "https://a.test", scoped("install", "build")))
		f.keeps(f.setEnv(p.ProjectID, "TOKEN", "hunter2-hunter2", asSecret))
		c := f.claim()
		require.Nil(t, c.Refused)
		require.Equal(t, []previewd.ClaimVar{
			{Name: "API_URL", Value: "https://a.test", Scopes: []previewd.EnvScope{"install", "build"}},
			{Name: "TOKEN", Value: "hunter2-hunter2", Secret: true, Scopes: []previewd.EnvScope{"build"}},
		}, c.Vars)
		require.NotContains(t, fmt.Sprintf("%v %+v %#v %q", c, c.Vars, c.Vars, c.Vars[1].Value), "hunter2", "a claim that is printed by mistake")
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "vars", c.Vars)
		require.NotContains(t, log.String(), "hunter2")

		stored, err := f.db.ListEnv(t.Context(), p.ProjectID)
		require.NoError(t, err)
		require.NotContains(t, string(stored[1].Stored), "hunter2")
		other := f.create()
		require.Empty(t, f.claim().Vars, "of another project")
		require.NotEqual(t, p.ProjectID, other.ProjectID)
	})
}

// A build is not run without its secrets.
func TestSecretsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	other := bytes.Repeat([]byte{8}, worker.SecretsKeySize)
	none := func(c *worker.Config) {
		c.SecretsKey = func(bool) ([]byte, error) { return nil, errors.New("the server has no key for secrets") }
	}
	for name, change := range map[string]func(*worker.Config){"OtherKey": withKey(other), "NoKey": none, "Nothing": func(*worker.Config) {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
				f := setup(t, db, withKey(testKey))
				p := f.create()
				f.keeps(f.setEnv(p.ProjectID, "TOKEN", "hunter2-hunter2", asSecret))
				f.keeps(f.setEnv(p.ProjectID, "PLAIN", "plain"))
				f.Service = setup(t, db, change).Service
				for try := 1; ; try++ {
					c := f.claim()
					require.Empty(t, c.Vars)
					require.Equal(t, []any{previewd.FailureInfra, previewd.FailSecrets}, []any{c.Refused.Class, c.Refused.Code})
					require.Contains(t, c.Refused.Message, "TOKEN")
					require.NotContains(t, c.Refused.Message, "PLAIN")
					require.Contains(t, c.Refused.Hint, "PREVIEWD_SECRETS_KEY")
					status, err := f.FinishBuild(t.Context(), c.Lease, previewd.Outcome{Kind: previewd.OutcomeFailed, Failure: c.Refused})
					require.NoError(t, err)
					if status == previewd.BuildFailed {
						break
					}
					require.Less(t, try, 10)
				}
				b, err := f.FindBuild(t.Context(), p.BuildID, 0)
				require.NoError(t, err)
				require.Equal(t, previewd.FailSecrets, b.Failure.Code)
				found, err := f.CheckAll(t.Context(), worker.Rows)
				require.NoError(t, err)
				require.Equal(t, name == "Nothing", found.OK, "who has no way to a key does not look")
				require.NoError(t, f.DeleteEnv(t.Context(), previewd.DeleteEnvRequest{ProjectID: p.ProjectID, Name: "TOKEN", Caller: caller}))
				found, err = f.CheckAll(t.Context(), worker.Rows)
				require.NoError(t, err)
				require.True(t, found.OK)
			})
		})
	}
}

// What was stored under one name, in one project, is nothing under another.
func TestSecretsStayWhereTheyAre(t *testing.T) {
	eachKeeper(t, func(t *testing.T, f *fixture) {
		p, q := f.create(), f.create()
		f.keeps(f.setEnv(p.ProjectID, "TOKEN", "hunter2-hunter2", asSecret))
		stored, err := f.db.ListEnv(t.Context(), p.ProjectID)
		require.NoError(t, err)
		put := func(projectID, name string, sealed []byte) {
			v := *stored[0]
			v.Name, v.Stored = name, sealed
			require.NoError(t, f.db.Tx(t.Context(), "test", func(tx *store.DB) error { return tx.UpsertEnv(t.Context(), projectID, &v) }))
		}
		put(p.ProjectID, "COPY", stored[0].Stored)
		c := f.claim()
		require.Contains(t, c.Refused.Message, "(COPY)")
		require.Equal(t, p.BuildID, c.BuildID)
		put(q.ProjectID, "TOKEN", stored[0].Stored)
		require.Contains(t, f.claim().Refused.Message, "what is stored was changed")

		third := f.create()
		bad := bytes.Clone(stored[0].Stored)
		bad[len(bad)-1] ^= 1
		put(third.ProjectID, "TOKEN", bad)
		require.Contains(t, f.claim().Refused.Message, "what is stored was changed")
		fourth := f.create()
		put(fourth.ProjectID, "TOKEN", []byte{})
		require.Contains(t, f.claim().Refused.Message, "does not know")
	})
}

// Only the first secret has a key made: others mean that there is one elsewhere.
func TestKeyIsMadeForTheFirstSecretOnly(t *testing.T) {
	eachKeeper(t, func(t *testing.T, f *fixture) {
		var asked []bool
		f.SecretsKey = func(make bool) ([]byte, error) {
			asked = append(asked, make)
			if !make {
				return nil, errors.New("the server has no key for secrets")
			}
			return testKey, nil
		}
		p := f.create()
		f.keeps(f.setEnv(p.ProjectID, "PLAIN", "plain"))
		require.Empty(t, asked)
		f.keeps(f.setEnv(p.ProjectID, "FIRST", "hunter2-hunter2", asSecret))
		_, err := f.setEnv(p.ProjectID, "SECOND", "hunter2-hunter2", asSecret)
		require.Equal(t, []bool{true, false}, asked)
		require.Equal(t, previewd.CodeUnavailable, previewd.ErrorCode(err))
		require.ErrorContains(t, err, "PREVIEWD_SECRETS_KEY")
	})
}

// The audit log says who changed what, and no value.
func TestAuditOfEnvHasNoValues(t *testing.T) {
	t.Parallel()
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) {
		f := setup(t, testkit.Open(t, cfg), withKey(testKey))
		p := f.create()
		f.keeps(f.setEnv(p.ProjectID, "TOKEN", "hunter2-hunter2", asSecret))
		f.keeps(f.setEnv(p.ProjectID, "PLAIN", "a plain value"))
		require.NoError(t, f.DeleteEnv(t.Context(), previewd.DeleteEnvRequest{ProjectID: p.ProjectID, Name: "TOKEN", Caller: caller}))
		entries := testkit.OpenShell(t, cfg).Texts("SELECT action || ' ' || actor || ' ' || data FROM worker_audit ORDER BY seq")
		text := strings.Join(entries, "\n")
		require.Contains(t, text, `env.set service/tests {"name":"TOKEN"`)
		require.Contains(t, text, `env.delete service/tests {"name":"TOKEN"`)
		for _, value := range []string{"hunter2-hunter2", "a plain value"} {
			require.NotContains(t, text, value)
			require.NotContains(t, text, base64.StdEncoding.EncodeToString([]byte(value)))
		}
	})
}
