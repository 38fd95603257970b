package app_test

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
)

// badCase is one request, as bytes.
type badCase struct {
	group, name string
	route       string // operation id, "" for what the description does not list
	method      string
	send        string
	cut         bool // the client stops sending after it
	broken      bool // net/http may answer, or hang up, before any handler
	heavy       bool // its body counts as large: one at a time, or the rest get 503
	page        bool // for a preview's host: answers are pages
}

// apiDoc is what the cases need of the API's description.
type apiDoc struct {
	Paths      map[string]map[string]apiOperation
	Components struct {
		Schemas map[string]struct {
			Properties map[string]any
			Required   []string
		}
	}
}

type apiOperation struct {
	OperationID string
	Parameters  []struct {
		Name, In string
		Required bool
	}
	RequestBody struct {
		Content map[string]struct {
			Schema struct {
				Ref string `json:"$ref"`
			}
		}
	}
	method, path string
}

// badInput makes the cases for one server.
type badInput struct {
	*server
	operations []apiOperation
	fields     map[string][]string // of a body, by operation id
	required   map[string][]string
	baseline   map[string]int                // how what works is answered when it was done before
	doomed     map[string]string             // what DELETE is sent for, by what the other cases are about
	prefix     string                        // of the API's paths
	spec       string                        // where its description is
	tokenFor   func(operation string) string // of the caller
	elsewhere  func(*badInput, adder)
	valid      map[string]string // for each parameter and field: a value that works
}

// newBadInput reads the routes from the server's own description. Values that
// work are about a project with a version, made by hand: no build runs here.
func newBadInput(s *server) *badInput {
	p := s.create(`{"userId":"u","templateFiles":{"index.html":"x"}}`, "Idempotency-Key", goodKey)
	claim, err := s.Worker.ClaimBuild(s.t.Context(), "by-hand", 0)
	require.NoError(s.t, err)
	require.NoError(s.t, s.Worker.AppendLog(s.t.Context(), claim.Lease, 0, []byte("hello\n")))
	manifest, err := artifact.PutManifest(s.t.Context(), s.Worker.Artifacts, previewd.Manifest{})
	require.NoError(s.t, err)
	_, err = s.Worker.FinishBuild(s.t.Context(), claim.Lease, previewd.Outcome{
		Kind: previewd.OutcomeCompleted, Manifest: manifest, Runner: "static", Isolation: "process",
	})
	require.NoError(s.t, err)
	doomed := s.create(`{"userId":"u","templateFiles":{"index.html":"x"}}`, "Idempotency-Key", goodKey+"-doomed")
	b := &badInput{server: s, prefix: "/v1", spec: "/openapi.json", tokenFor: func(string) string { return s.Token }, elsewhere: (*badInput).addElsewhere}
	b.doomed = map[string]string{p.ProjectID: doomed.ProjectID}
	b.valid = map[string]string{
		"projectId": p.ProjectID, "buildId": p.BuildID, "number": "1", "wait": "1s", "after": "1", "log": "true", "offset": "1", "limit": "10",
		"idempotencyKey": goodKey, "cursor": p.ProjectID, "list-versions.cursor": "2", "createdBy": "local", "list-projects.after": p.ProjectID, "delete-project.projectId": doomed.ProjectID, "userId": "u", "Idempotency-Key": goodKey + "-2", "Last-Event-ID": "1",
		"body.userId": `"u"`, "body.projectId": `""`, "body.prompt": `"p"`, "body.templateFiles": `{"index.html":"y"}`, "body.metadata": `{"a":1}`, "body.policy": `"supersede"`,
		"body.remove": `["index.html"]`,
		"name":        "API_KEY", "body.value": `"hunter2-hunter2"`, "body.secret": "false", "body.scopes": `["install","build"]`,
	}
	b.baseline = map[string]int{"get-failure": http.StatusConflict, "repair-build": http.StatusConflict} // it has not failed
	b.readDescription()
	return b
}

func (b *badInput) readDescription() {
	b.fields, b.required = map[string][]string{}, map[string][]string{}
	status, _, text := b.call(http.MethodGet, b.spec, "")
	require.Equal(b.t, http.StatusOK, status)
	var doc apiDoc
	require.NoError(b.t, json.Unmarshal([]byte(text), &doc))
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for method, op := range doc.Paths[path] {
			op.method, op.path = strings.ToUpper(method), path
			b.operations = append(b.operations, op)
			for _, media := range op.RequestBody.Content {
				schema := doc.Components.Schemas[media.Schema.Ref[strings.LastIndex(media.Schema.Ref, "/")+1:]]
				b.fields[op.OperationID] = slices.Sorted(maps.Keys(schema.Properties))
				b.required[op.OperationID] = schema.Required
			}
		}
	}
	require.NotEmpty(b.t, b.operations)
}

// value returns what works for a parameter or field. A new one is not tested
// until it has a value here.
func (b *badInput) value(op apiOperation, name string) string {
	if v, ok := b.valid[op.OperationID+"."+name]; ok {
		return v
	}
	v, ok := b.valid[name]
	require.True(b.t, ok, "%s %s: say what value works for %q", op.method, op.path, name)
	return v
}

// target is the operation's path, with one segment replaced, and its required
// query parameters.
func (b *badInput) target(op apiOperation, replaced, by string) string {
	target, query := op.path, ""
	for _, p := range op.Parameters {
		v := b.value(op, p.Name)
		if p.Name == replaced {
			v = by
		}
		switch {
		case p.In == "path":
			target = strings.Replace(target, "{"+p.Name+"}", v, 1)
		case p.In == "query" && (p.Required || p.Name == replaced):
			query += "&" + p.Name + "=" + v
		}
	}
	if query != "" {
		target += "?" + query[1:]
	}
	return target
}

// body is the operation's body with the required fields and one more.
func (b *badInput) body(op apiOperation, field, value string) string {
	if b.fields[op.OperationID] == nil {
		return ""
	}
	members := map[string]string{}
	if slices.Contains(b.fields[op.OperationID], "templateFiles") {
		members["templateFiles"] = b.value(op, "body.templateFiles")
	}
	for _, name := range b.required[op.OperationID] {
		members[name] = b.value(op, "body."+name)
	}
	if field != "" {
		members[field] = value
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		list = append(list, fmt.Sprintf("%q:%s", name, members[name]))
	}
	return "{" + strings.Join(list, ",") + "}"
}

// wire is a request before it is bytes. What is "" takes what works.
type wire struct {
	operation, method, target, protocol string
	host, auth, lines                   *string
	body                                string
	framed                              *framing
}

func (b *badInput) request(op apiOperation) wire {
	return wire{operation: op.OperationID, method: op.method, target: b.target(op, "", ""), protocol: "HTTP/1.1", body: b.body(op, "", "")}
}

// bytes writes the request out. Lines of its own come last, and stand in the
// place of the Content-Type when they name one.
func (b *badInput) bytes(w wire) string {
	var out strings.Builder
	line := func(text string) {
		if text != "" {
			out.WriteString(text + "\r\n")
		}
	}
	or := func(p *string, otherwise string) string {
		if p != nil {
			return *p
		}
		return otherwise
	}
	out.WriteString(strings.TrimRight(w.method+" "+w.target+" "+w.protocol, " ") + "\r\n")
	line(or(w.host, "Host: "+strings.TrimPrefix(b.Config.BaseURL, "http://")))
	line(or(w.auth, "Authorization: Bearer "+b.tokenFor(w.operation)))
	lines := or(w.lines, "")
	if !strings.Contains(lines, "Content-Type:") && (w.body != "" || w.framed != nil) {
		line("Content-Type: application/json")
	}
	if !strings.Contains(lines, "Idempotency-Key:") {
		line("Idempotency-Key: " + previewd.NewRequestID())
	}
	if !strings.HasPrefix(lines, "Connection:") {
		line("Connection: close")
	}
	body := w.body
	switch {
	case w.framed != nil:
		line(w.framed.lines)
		body = w.framed.body
	case body != "" && !strings.Contains(lines, "Transfer-Encoding") && !strings.Contains(lines, "Content-Length"):
		line(fmt.Sprintf("Content-Length: %d", len(body)))
	}
	line(lines)
	return out.String() + "\r\n" + body
}

// cases are all that an operation gets, and what no operation is asked for.
func (b *badInput) cases() iter.Seq[badCase] {
	return func(yield func(badCase) bool) {
		stopped := false
		for _, op := range b.operations {
			add := func(c badCase, w wire) {
				if stopped {
					return
				}
				c.route, c.method, c.send = op.OperationID, w.method, b.bytes(w)
				c.heavy = c.heavy || len(w.body) > 1<<20
				stopped = !yield(c)
			}
			b.addParameters(op, add)
			b.addHeaders(op, add)
			b.addRequests(op, add)
			b.addBodies(op, add)
		}
		b.elsewhere(b, func(c badCase, w wire) {
			c.method, c.send = w.method, b.bytes(w)
			stopped = stopped || !yield(c)
		})
	}
}

type adder func(badCase, wire)

func (b *badInput) addParameters(op apiOperation, add adder) {
	id := b.valid["projectId"]
	for _, p := range op.Parameters {
		if p.In == "header" {
			for _, v := range keyValues() {
				w, line := b.request(op), p.Name+": "+v
				w.lines = &line
				add(badCase{group: "header parameter", name: line}, w)
			}
			continue
		}
		set := func(v string, broken bool) {
			w := b.request(op)
			w.target = b.target(op, p.Name, v)
			add(badCase{group: p.In + " parameter", name: w.target, broken: broken}, w)
		}
		set("", false)
		for _, v := range badValues(id) {
			set(v, false)
		}
		for _, v := range brokenValues() {
			set(v, true)
		}
		if p.In == "query" {
			for _, v := range []string{"1&" + p.Name + "=2", "1&" + p.Name, "%5B%5D=1&" + p.Name + "[]=1", "+", "1+1", "1h", "-1s", "1e9h", "9999999999999h", "0.1ns", repeat("1&"+p.Name+"=", 1000) + "1", "&&&", "=", "==", "%26x=1"} {
				set(v, false)
			}
		}
	}
}

func (b *badInput) addHeaders(op apiOperation, add adder) {
	with := func(group, line string, broken bool, change func(*wire, *string)) {
		w := b.request(op)
		change(&w, &line)
		add(badCase{group: group, name: line, broken: broken}, w)
	}
	lines := func(w *wire, line *string) { w.lines = line }
	for _, line := range headerLines() {
		with("header", line, false, lines)
	}
	for _, line := range brokenLines() {
		with("broken header", line, true, lines)
	}
	for _, key := range keyValues() {
		with("key", "Idempotency-Key: "+key, false, lines)
	}
	for _, pair := range [][2]string{{goodKey, goodKey}, {goodKey, "x"}, {"", goodKey}, {"x", ""}} {
		with("two keys", "Idempotency-Key: "+pair[0]+"\r\nIdempotency-Key: "+pair[1], false, lines)
	}
	with("broken key", "Idempotency-Key: "+repeat("k", 40_000), true, lines)
	for _, line := range authLines(b.tokenFor(op.OperationID)) {
		with("authorization", line, false, func(w *wire, line *string) { w.auth = line })
	}
	for _, line := range hostLines {
		with("host", line, true, func(w *wire, line *string) { w.host = line })
	}
}

func (b *badInput) addRequests(op apiOperation, add adder) {
	for _, method := range strings.Fields(badMethods) {
		w := b.request(op)
		w.method = method
		if method == http.MethodDelete { // not what the other cases are about
			for id, doomed := range b.doomed {
				w.target = strings.Replace(w.target, id, doomed, 1)
			}
		}
		add(badCase{group: "method", name: method, broken: method == "CONNECT" || method == "PRI"}, w)
	}
	for _, method := range brokenMethods() {
		w := b.request(op)
		w.method = method
		add(badCase{group: "broken method", name: method, broken: true}, w)
	}
	for _, protocol := range badProtocols {
		w := b.request(op)
		w.protocol = protocol
		add(badCase{group: "protocol", name: protocol, broken: protocol != "HTTP/1.0"}, w)
	}
	for _, change := range []struct{ old, by string }{
		{"/v1", "//v1"}, {"/v1", "/v1/"}, {"/v1", "/V1"}, {"/v1", "/./v1"}, {"/v1", "/x/../v1"}, {"/v1", "/v1/%2e%2e/v1"}, {"/v1", "/%761"}, {"/v1", "/v1;x"}, {"/v1", "/v1%00"}, {"/v1", "/v1%2f"}, {"/v1", "\\v1"}, {"/v1", "http://evil.example/v1"}, {"/v1", "?/v1"}, {"/v1", "/v1/v1"}, {"/v1", "/v2"},
	} {
		w := b.request(op)
		w.target = strings.Replace(w.target, b.prefix, strings.ReplaceAll(change.by, "/v1", b.prefix), 1)
		add(badCase{group: "target", name: w.target, broken: strings.ContainsAny(change.by, `\?`)}, w)
	}
	for _, suffix := range []string{"/", "//", "/.", "/..", "%00", ".json", "/x", "%20", "?", "??", "?&&&", "?%00=%00", "?x=%zz", "?" + repeat("a=b&", 2000), "?unknown=1", "#x", ";", "?;", "?[]=1", "?$where=1"} {
		w := b.request(op)
		path, _, _ := strings.Cut(w.target, "?")
		w.target = path + suffix
		add(badCase{group: "target", name: w.target}, w)
	}
}

func (b *badInput) addBodies(op apiOperation, add adder) {
	good := b.body(op, "", "")
	if good == "" {
		good = `{"userId":"u"}`
	}
	for i, body := range badBodies(good) {
		w := b.request(op)
		w.body = body
		add(badCase{group: "body", name: fmt.Sprint(i, " ", clip(body))}, w)
	}
	for i, body := range tenMBValues() {
		w := b.request(op)
		w.body = body
		add(badCase{group: "10 MB body", name: fmt.Sprint(i, " ", clip(body))}, w)
	}
	for i, f := range badFramings(good) {
		w := b.request(op)
		w.framed = &f
		add(badCase{group: "framing", name: fmt.Sprint(i, " ", f.lines, clip(f.body)), cut: f.cut, broken: f.broken, heavy: true}, w)
	}
	for _, field := range b.fields[op.OperationID] {
		values := slices.Concat(badJSON(), tenMBValues()[:1], []string{b.value(op, "body."+field)})
		switch field {
		case "templateFiles":
			values = append(values, badTrees()...)
		case "metadata":
			values = append(values, badMetadata()...)
		}
		for i, value := range values {
			w := b.request(op)
			w.body = b.body(op, field, value)
			add(badCase{group: "field " + field, name: fmt.Sprint(i, " ", clip(value))}, w)
		}
	}
}

// addElsewhere asks for what the description does not list, and for previews.
func (b *badInput) addElsewhere(add adder) {
	for _, target := range []string{"/", "//", "/healthz", "/readyz", "/docs", "/openapi.json", "/openapi.yaml", "/openapi-3.0.json", "/schemas/Build.json", "/v1", "/v1/", "/v1/nothing", "/metrics", "/debug/pprof/", "/.git/config", "/favicon.ico", "/%00", "/..%2f..%2fetc/passwd", "/../../etc/passwd", "*", "evil.example:80", "http://", "http://a/", "http:///v1/projects", "/" + repeat("a/", 4000), "/" + repeat("%2f", 4000)} {
		for _, method := range strings.Fields(badMethods) {
			broken := !strings.HasPrefix(target, "/") || method == "CONNECT" || method == "PRI"
			add(badCase{group: "elsewhere", name: method + " " + target, broken: broken}, wire{method: method, target: target, protocol: "HTTP/1.1"})
		}
	}
	for _, label := range []string{b.valid["projectId"], b.valid["buildId"] + ".b", "x", "", ".", "x.b", previewd.NewID(), "-", "*", repeat("a", 300), "a.b.c.d", "\xff"} {
		host := "Host: " + label + "." + b.Config.PreviewDomain
		for _, target := range append(badValues(b.valid["projectId"]), "", "a/", "index.html/", "//x", "_previewd/events") {
			add(badCase{group: "preview", name: host + " /" + target, broken: true, page: true}, wire{method: http.MethodGet, target: "/" + target, protocol: "HTTP/1.1", host: &host})
		}
	}
}

// clip returns the beginning of a text.
func clip(s string) string { return s[:min(len(s), 60)] }
