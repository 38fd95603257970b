package runner

import (
	"bytes"
	"net/url"
	"path"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// refKind says how a page uses what it refers to.
type refKind int

const (
	refAsset  refKind = iota // shown, linked or played as it is
	refModule                // <script type="module">
	refStyle                 // <link rel="stylesheet">
	refSrcset                // several assets, each with a descriptor
)

// moduleScript is a module that a page loads: by src, or inline.
type moduleScript struct {
	src    string
	inline string
	line   int
}

// moduleScripts returns the modules of a page in order. A page with an import
// map resolves its own imports: its modules are not the bundler's business.
func moduleScripts(source []byte) []moduleScript {
	if !bytes.Contains(source, []byte("module")) {
		return nil
	}
	var scripts []moduleScript
	importMap := false
	walkHTML(source, func(t *htmlToken) {
		if !t.opens(atom.Script) {
			return
		}
		switch strings.ToLower(t.attr("type")) {
		case "importmap":
			importMap = true
		case "module":
			scripts = append(scripts, moduleScript{src: t.attr("src"), inline: t.text, line: t.line})
		}
	})
	if importMap {
		return nil
	}
	return scripts
}

// htmlToken is a token of a page. Setting out replaces it, setting inner what
// it holds; before is written in front of it.
type htmlToken struct {
	html.Token
	line   int
	text   string // of a script or style element: what it holds
	before string
	out    *string
	inner  *string // replaces text
}

// opens reports whether the token begins an element. A slash at the end of a
// tag means nothing in HTML: <script/> is a script that goes on.
func (t *htmlToken) opens(a atom.Atom) bool {
	return t.DataAtom == a && (t.Type == html.StartTagToken || t.Type == html.SelfClosingTagToken)
}

func (t *htmlToken) attr(name string) string {
	for _, a := range t.Attr {
		if a.Key == name {
			return strings.TrimSpace(a.Val)
		}
	}
	return ""
}

func (t *htmlToken) rel(word string) bool {
	for _, w := range strings.Fields(strings.ToLower(t.attr("rel"))) {
		if w == word {
			return true
		}
	}
	return false
}

// walkHTML calls visit for each token and returns the page with what visit has
// replaced. Everything else keeps its bytes. The tokenizer works in a loop, not
// by recursion: depth of nesting costs nothing.
func walkHTML(source []byte, visit func(*htmlToken)) []byte {
	var out bytes.Buffer
	z := html.NewTokenizer(bytes.NewReader(source))
	line := 1
	for {
		kind := z.Next()
		raw := bytes.Clone(z.Raw())
		if kind == html.ErrorToken {
			out.Write(raw)
			return out.Bytes()
		}
		t := &htmlToken{Token: z.Token(), line: line}
		line += bytes.Count(raw, []byte("\n"))
		var inner []byte
		if t.opens(atom.Script) || t.opens(atom.Style) {
			if z.Next() == html.TextToken {
				inner = bytes.Clone(z.Raw())
				t.text = string(inner)
			} else {
				inner = bytes.Clone(z.Raw()) // the end tag of an empty script
			}
			line += bytes.Count(inner, []byte("\n"))
		}
		visit(t)
		out.WriteString(t.before)
		if t.out == nil {
			out.Write(raw)
		} else {
			out.WriteString(*t.out)
		}
		if t.inner == nil || t.text == "" {
			out.Write(inner)
		} else {
			out.WriteString(*t.inner)
		}
	}
}

// references returns which attributes of a tag refer to files, and how.
func references(t *htmlToken) map[string]refKind {
	switch t.DataAtom {
	case atom.Script:
		if strings.EqualFold(t.attr("type"), "module") {
			return map[string]refKind{"src": refModule}
		}
		return map[string]refKind{"src": refAsset}
	case atom.Link:
		switch {
		case t.rel("stylesheet"):
			return map[string]refKind{"href": refStyle}
		case t.rel("icon"), t.rel("apple-touch-icon"), t.rel("mask-icon"), t.rel("manifest"), t.rel("preload"):
			return map[string]refKind{"href": refAsset}
		}
	case atom.Img, atom.Source:
		return map[string]refKind{"src": refAsset, "srcset": refSrcset}
	case atom.Video:
		return map[string]refKind{"src": refAsset, "poster": refAsset}
	case atom.Audio, atom.Track, atom.Embed, atom.Input:
		return map[string]refKind{"src": refAsset}
	case atom.Object:
		return map[string]refKind{"data": refAsset}
	case atom.Image:
		return map[string]refKind{"href": refAsset, "xlink:href": refAsset}
	}
	return nil
}

// localPath returns the path in the tree that a reference on a page means, or
// false for one that leads elsewhere: another host, a data URL, a fragment.
func localPath(pagePath, ref string) (string, bool) {
	ref = strings.TrimSpace(ref)
	name := stripQuery(ref)
	if name == "" || strings.HasPrefix(ref, "//") || hasScheme(ref) {
		return "", false
	}
	name, err := url.PathUnescape(name)
	if err != nil {
		return "", false
	}
	if rooted, ok := strings.CutPrefix(name, "/"); ok {
		return path.Clean(rooted), true
	}
	return path.Join(path.Dir(pagePath), name), true
}

// hasScheme reports whether a reference begins with a URL scheme (RFC 3986 §3.1).
func hasScheme(ref string) bool {
	scheme, _, found := strings.Cut(ref, ":")
	if !found || scheme == "" {
		return false
	}
	for i, c := range scheme {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", c)) {
			return false
		}
	}
	return true
}
