package detect

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/previewd/previewd"
)

// Fallback looks where authors say that a site is a single-page app: in
// previewd.json, in a file called 200.html, or in a catch-all rule of _redirects.
// An empty File: nobody does.
func Fallback(fsys fs.FS, config Config) previewd.PlanFallback {
	if config.Fallback != nil {
		return previewd.PlanFallback{File: *config.Fallback, Why: previewd.Why{Reason: ConfigFile + " says so.", From: ConfigFile}}
	}
	t := &tree{fsys: fsys}
	for _, dir := range []string{"", "public/"} {
		if t.isFile(dir + "200.html") {
			return previewd.PlanFallback{File: "200.html", Why: previewd.Why{Reason: "The name of " + dir + "200.html says so.", From: dir + "200.html"}}
		}
		rules, err := t.read(dir+"_redirects", maxManifest)
		if err != nil {
			continue
		}
		for rule := range strings.Lines(string(rules)) {
			f := strings.Fields(rule)
			if len(f) >= 3 && f[0] == "/*" && strings.HasPrefix(f[2], "200") {
				return previewd.PlanFallback{
					File: strings.TrimPrefix(f[1], "/"),
					Why:  previewd.Why{Reason: fmt.Sprintf("%s_redirects has a rule for all paths.", dir), From: dir + "_redirects"},
				}
			}
		}
	}
	return previewd.PlanFallback{Why: previewd.Why{Reason: "Nothing says that one page answers all paths."}}
}

// fallback decides whether unknown paths get a page of the site.
func (d *detector) fallback() {
	p := &d.plan.Fallback
	found := Fallback(d.tree.fsys, d.config)
	switch router, has := d.router(); {
	case d.config.Fallback != nil:
		p.File, p.From = *d.config.Fallback, d.from["fallback"]
		p.Reason = p.From + " says so."
	case found.File != "":
		*p = found
	case p.Reason != "": // its framework's rule knew
	case d.framework != nil && d.framework.router && has:
		p.File, p.From = "index.html", manifestFile
		p.Reason = fmt.Sprintf("The routes of %s live in the page, so unknown paths get it.", router)
	default:
		p.Reason = "Nothing says that one page answers all paths."
	}
	p.File = clean(p.File, 200)
}

func (d *detector) router() (string, bool) {
	if d.pkg == nil {
		return "", false
	}
	return d.pkg.has(routers...)
}
