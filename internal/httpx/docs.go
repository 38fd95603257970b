package httpx

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsHTML string

var docsTemplate = template.Must(template.New("docs").Parse(docsHTML))

// Docs answers with the API's description as one page that needs nothing from
// elsewhere, not even a script.
func Docs(api *huma.OpenAPI) http.Handler {
	page := sync.OnceValues(func() ([]byte, error) {
		var out bytes.Buffer
		err := docsTemplate.Execute(&out, newDocsPage(api))
		return out.Bytes(), err
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := page()
		if err != nil {
			WriteProblem(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		_, _ = w.Write(body)
	})
}

type docsPage struct {
	Title, Version string
	Description    []docsBlock
	Operations     []docsOperation
	Schemas        []docsSchema
}

type docsOperation struct {
	*huma.Operation
	Body    []docsField
	Answers []docsAnswer
	Secured bool
}

type docsAnswer struct{ Status, Description, Type, Schema string }

type docsSchema struct {
	Name   string
	Fields []docsField
}

type docsField struct {
	Name, Type, Doc, Ref string
	Required             bool
}

func newDocsPage(api *huma.OpenAPI) docsPage {
	page := docsPage{Title: api.Info.Title, Version: api.Info.Version}
	page.Description = docsBlocks(api.Info.Description)

	schemas := api.Components.Schemas.Map()
	for _, item := range api.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil {
				page.Operations = append(page.Operations, newDocsOperation(op, schemas))
			}
		}
	}
	slices.SortFunc(page.Operations, func(a, b docsOperation) int {
		return strings.Compare(a.Path+a.Method, b.Path+b.Method)
	})
	for name, schema := range schemas {
		page.Schemas = append(page.Schemas, docsSchema{Name: name, Fields: docsFields(schema)})
	}
	slices.SortFunc(page.Schemas, func(a, b docsSchema) int { return strings.Compare(a.Name, b.Name) })
	return page
}

func newDocsOperation(op *huma.Operation, schemas map[string]*huma.Schema) docsOperation {
	d := docsOperation{Operation: op, Secured: len(op.Security) > 0}
	if op.RequestBody != nil {
		for _, media := range op.RequestBody.Content {
			d.Body = docsFields(schemas[refName(media.Schema)])
		}
	}
	for status, response := range op.Responses {
		answer := docsAnswer{Status: status, Description: response.Description}
		for contentType, media := range response.Content {
			answer.Type, answer.Schema = contentType, refName(media.Schema)
		}
		d.Answers = append(d.Answers, answer)
	}
	slices.SortFunc(d.Answers, func(a, b docsAnswer) int { return strings.Compare(a.Status, b.Status) })
	return d
}

func refName(s *huma.Schema) string {
	if s == nil {
		return ""
	}
	return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
}

func docsFields(s *huma.Schema) []docsField {
	if s == nil {
		return nil
	}
	var fields []docsField
	for name, property := range s.Properties {
		field := docsField{Name: name, Doc: property.Description, Required: slices.Contains(s.Required, name)}
		field.Type, field.Ref = docsType(property)
		fields = append(fields, field)
	}
	slices.SortFunc(fields, func(a, b docsField) int {
		if a.Required != b.Required {
			return map[bool]int{true: -1, false: 1}[a.Required]
		}
		return strings.Compare(a.Name, b.Name)
	})
	return fields
}

func docsType(s *huma.Schema) (text, ref string) {
	switch {
	case s.Ref != "":
		return refName(s), refName(s)
	case s.Type == huma.TypeArray && s.Items != nil:
		item, ref := docsType(s.Items)
		return "list of " + item, ref
	case len(s.Enum) > 0:
		raw, _ := json.Marshal(s.Enum)
		return strings.ReplaceAll(strings.Trim(string(raw), "[]"), ",", " | "), ""
	case s.Format != "":
		return s.Type + " (" + s.Format + ")", ""
	}
	return s.Type, ""
}

// docsBlock is a heading, a list or a paragraph of the API's description.
type docsBlock struct {
	ID, Heading, Text string
	Items             []string
}

// docsBlocks reads the little Markdown that descriptions are written in.
func docsBlocks(text string) (blocks []docsBlock) {
	for block := range strings.SplitSeq(strings.ReplaceAll(strings.TrimSpace(text), "`", ""), "\n\n") {
		b := docsBlock{}
		if heading, ok := strings.CutPrefix(block, "## "); ok {
			b.ID, b.Heading = strings.ToLower(heading), heading
		} else if list, ok := strings.CutPrefix(block, "- "); ok {
			for item := range strings.SplitSeq(list, "\n- ") {
				b.Items = append(b.Items, strings.Join(strings.Fields(item), " "))
			}
		} else {
			b.Text = strings.Join(strings.Fields(block), " ")
		}
		blocks = append(blocks, b)
	}
	return blocks
}
