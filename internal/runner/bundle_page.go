package runner

import (
	"fmt"
	"html"
	"regexp"
	"strings"

	xhtml "golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// rewritePage makes a page load what the build has made of its modules, styles
// and assets.
func (b *bundle) rewritePage(p page) ([]byte, error) {
	r := &pageRewriter{bundle: b, page: p, scripts: p.modules}
	source := []byte(b.envReplacer().Replace(string(p.source)))
	out := walkHTML(source, r.visit)
	return out, r.err
}

type pageRewriter struct {
	*bundle
	page    page
	scripts []moduleScript
	next    int  // index of the next module script
	linked  bool // the head's links are written
	err     error
}

func (r *pageRewriter) visit(t *htmlToken) {
	if t.DataAtom == atom.Head && t.Type == xhtml.EndTagToken {
		t.before = r.headLinks()
	}
	if t.Type != xhtml.StartTagToken && t.Type != xhtml.SelfClosingTagToken {
		return
	}
	changed := false
	mapped := r.scripts == nil && strings.EqualFold(t.attr("type"), "module") // its import map finds it under its name
	if t.opens(atom.Style) {
		inner := styleURL.ReplaceAllStringFunc(t.text, r.styleURL)
		t.inner = &inner
	}
	if t.DataAtom == atom.Script && strings.EqualFold(t.attr("type"), "module") && r.scripts != nil {
		t.before = r.headLinks() // a page without </head>
		changed = r.moduleScript(t)
	} else if !mapped {
		for attr, kind := range references(t) {
			changed = r.reference(t, attr, kind) || changed
		}
	}
	if changed {
		text := t.String()
		t.out = &text
	}
}

// headLinks returns the stylesheets and preloads of all the page's modules, once.
func (r *pageRewriter) headLinks() string {
	if r.linked {
		return ""
	}
	r.linked = true
	var links strings.Builder
	seen := map[string]bool{}
	write := func(format, url string) {
		if !seen[url] {
			seen[url] = true
			fmt.Fprintf(&links, format, html.EscapeString(url))
		}
	}
	for i, script := range r.scripts {
		entry := r.entryOf(i, script)
		for _, url := range entry.preload {
			write("<link rel=\"modulepreload\" href=\"%s\">\n", url)
		}
		for _, url := range entry.styles {
			write("<link rel=\"stylesheet\" href=\"%s\">\n", url)
		}
	}
	return links.String()
}

func (r *pageRewriter) entryOf(index int, script moduleScript) builtEntry {
	if script.src == "" {
		return r.built[inlineName(r.page.path, index)]
	}
	local, _ := localPath(r.page.path, script.src)
	return r.built[local]
}

// moduleScript points a module script to its bundle; an inline one gets a src.
func (r *pageRewriter) moduleScript(t *htmlToken) bool {
	entry := r.entryOf(r.next, moduleScript{src: t.attr("src")})
	r.next++
	if entry.file == "" {
		return false
	}
	if t.attr("src") == "" {
		t.Attr = append(t.Attr, xhtml.Attribute{Key: "src", Val: entry.file})
		t.inner = new("")
		return true
	}
	return setAttr(t, "src", entry.file)
}

func setAttr(t *htmlToken, key, value string) bool {
	for i := range t.Attr {
		if t.Attr[i].Key == key {
			t.Attr[i].Val = value
			return true
		}
	}
	return false
}

func (r *pageRewriter) reference(t *htmlToken, attr string, kind refKind) bool {
	value := t.attr(attr)
	if value == "" {
		return false
	}
	if kind == refSrcset {
		rewritten := r.srcset(value)
		return rewritten != value && setAttr(t, attr, rewritten)
	}
	url := r.url(value, kind)
	return url != value && setAttr(t, attr, url)
}

// url returns what a reference is to become; unchanged when it is not the build's.
func (r *pageRewriter) url(ref string, kind refKind) string {
	local, ok := localPath(r.page.path, ref)
	if !ok {
		return ref
	}
	if entry, ok := r.built[local]; ok && kind == refStyle {
		return entry.file
	}
	url, ok, err := r.asset(local)
	if err != nil && r.err == nil {
		r.err = err
	}
	if !ok {
		return ref
	}
	return url + ref[len(stripQuery(ref)):]
}

var styleURL = regexp.MustCompile(`url\(\s*(?:"[^"]*"|'[^']*'|[^)"']*)\s*\)`)

// styleURL rewrites one url() of a style that is written into the page.
func (r *pageRewriter) styleURL(match string) string {
	ref := strings.Trim(match[len("url("):len(match)-1], " \t\r\n\"'")
	url := r.url(ref, refAsset)
	if url == ref {
		return match
	}
	return `url("` + url + `")`
}

func (r *pageRewriter) srcset(value string) string {
	candidates := strings.Split(value, ",")
	for i, c := range candidates {
		if ref, descriptor, _ := strings.Cut(strings.TrimSpace(c), " "); ref != "" {
			candidates[i] = strings.TrimSpace(r.url(ref, refAsset) + " " + descriptor)
		}
	}
	return strings.Join(candidates, ", ")
}
