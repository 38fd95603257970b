package worker_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
)

func reader(s string) io.Reader { return strings.NewReader(s) }

// Bad input is refused before anything is stored, in words that name it.
func TestCreateRefusesBadPaths(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		bad := []string{
			"", "/etc/passwd", "../x", "a/../b", "a/./b", "./a", "a//b", "a/", `a\b`, `a\..\b`, "C:/x", "a:b", "a\x00b", "a\nb", "a\x1bb",
			"con", "sub/NUL.txt", "COM1", "lpt9.js", "a.", "a ", "dir./x", "x?y", "x*y", `x"y`, "x<y", "x|y",
			"e\u0301.txt", "bad\xff.txt", strings.Repeat("a", 256), strings.Repeat("a/", 600) + "x", strings.Repeat("d/", 33) + "x",
		}
		for _, name := range bad {
			req := request()
			req.TemplateFiles = previewd.Files{"index.html": nil, name: []byte("x")}
			_, err := f.CreatePreview(t.Context(), req)
			require.Equal(t, previewd.CodeInvalidPath, previewd.ErrorCode(err), "%q", name)
			require.ErrorContains(t, err, "templateFiles[")
			if name == "../x" || name == "a/../b" {
				require.ErrorContains(t, err, `segment ".."`)
			}
		}
		for _, pair := range [][2]string{{"a.txt", "A.TXT"}, {"straße", "STRASSE"}, {"a", "a/b"}, {"x/y", "X/y/z"}} {
			req := request()
			req.TemplateFiles = previewd.Files{pair[0]: []byte("x"), pair[1]: []byte("x")}
			_, err := f.CreatePreview(t.Context(), req)
			require.Equal(t, previewd.CodeInvalidPath, previewd.ErrorCode(err), "%q", pair)
		}
		page, err := f.ListProjects(t.Context(), previewd.ProjectFilter{})
		require.NoError(t, err)
		require.Empty(t, page.Projects)
	})
}

func TestCreateTakesUsualPaths(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		req := request()
		for _, name := range []string{"src/app/[slug]/page.tsx", ".well-known/x", "a b/ü.txt", "@scope/x.js", "icon/x", "console.js", "a..b", strings.Repeat("n", 255)} {
			req.TemplateFiles[name] = []byte("x")
		}
		_, err := f.CreatePreview(t.Context(), req)
		require.NoError(t, err)
	})
}

func TestCreateRefusesBadInput(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		big := previewd.Files{}
		for i := range 10_001 {
			big[fmt.Sprintf("f%d", i)] = nil
		}
		for name, c := range map[string]struct {
			change func(*previewd.CreatePreviewRequest)
			code   previewd.Code
		}{
			"NoUser":          {func(r *previewd.CreatePreviewRequest) { r.UserID = "" }, previewd.CodeInvalid},
			"ControlInUser":   {func(r *previewd.CreatePreviewRequest) { r.UserID = "a\nb" }, previewd.CodeInvalid},
			"LongUser":        {func(r *previewd.CreatePreviewRequest) { r.UserID = strings.Repeat("u", 129) }, previewd.CodeTooLarge},
			"LongPrompt":      {func(r *previewd.CreatePreviewRequest) { r.Prompt = strings.Repeat("p", 32<<10+1) }, previewd.CodeTooLarge},
			"NULInPrompt":     {func(r *previewd.CreatePreviewRequest) { r.Prompt = "a\x00b" }, previewd.CodeInvalid},
			"NotUTF8":         {func(r *previewd.CreatePreviewRequest) { r.Prompt = "\xff" }, previewd.CodeInvalid},
			"Nothing":         {func(r *previewd.CreatePreviewRequest) { r.TemplateFiles = nil }, previewd.CodeInvalid},
			"TooManyFiles":    {func(r *previewd.CreatePreviewRequest) { r.TemplateFiles = big }, previewd.CodeTooLarge},
			"TooManyBytes":    {func(r *previewd.CreatePreviewRequest) { r.TemplateFiles = previewd.Files{"x": make([]byte, 50<<20+1)} }, previewd.CodeTooLarge},
			"LargeMetadata":   {func(r *previewd.CreatePreviewRequest) { r.Metadata = map[string]any{"x": strings.Repeat("m", 16<<10)} }, previewd.CodeTooLarge},
			"UnknownTemplate": {func(r *previewd.CreatePreviewRequest) { r.Metadata = map[string]any{"template": "nope"} }, previewd.CodeInvalid},
			"TemplateNoText":  {func(r *previewd.CreatePreviewRequest) { r.Metadata = map[string]any{"template": 1} }, previewd.CodeInvalid},
			"SecretEnv": {func(r *previewd.CreatePreviewRequest) {
				r.Metadata = map[string]any{"build": map[string]any{"env": map[string]any{"AWS_SECRET": "x"}}}
			}, previewd.CodeInvalid},
			"UnknownBuildMember": {func(r *previewd.CreatePreviewRequest) {
				r.Metadata = map[string]any{"build": map[string]any{"outptu": "x"}}
			}, previewd.CodeInvalid},
			"BuildIsAString": {func(r *previewd.CreatePreviewRequest) {
				r.Metadata = map[string]any{"build": map[string]any{"build": "vite build && rm -rf /"}}
			}, previewd.CodeInvalid},
			"BuildIsAList": {func(r *previewd.CreatePreviewRequest) {
				r.Metadata = map[string]any{"build": []any{"runner"}}
			}, previewd.CodeInvalid},
		} {
			req := request()
			c.change(&req)
			_, err := f.CreatePreview(t.Context(), req)
			require.Equal(t, c.code, previewd.ErrorCode(err), name)
		}
	})
}

// A template's project finds the prompt as data, and the request's files lie
// over the template's.
func TestTemplateGetsThePromptAsData(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		const prompt = `</script><script>alert("x")</script>`
		templates, err := f.ListTemplates(t.Context())
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(templates), 3)
		for _, template := range templates {
			req := previewd.CreatePreviewRequest{
				UserID: "u", Prompt: prompt, Metadata: map[string]any{"template": template.Name},
				TemplateFiles: previewd.Files{"index.html": []byte("mine")}, Caller: caller,
			}
			_, err := f.CreatePreview(t.Context(), req)
			require.NoError(t, err)
			pack, err := artifact.ReadBlob(t.Context(), f.Artifacts, f.claim().Source, 1<<20)
			require.NoError(t, err)
			require.Contains(t, string(pack), `{"prompt":"\u003c/script`)
			require.Contains(t, string(pack), "mine")
			require.Greater(t, template.Files, 3)
		}
	})
}
