package httpx

import "github.com/previewd/previewd"

// PageInput asks for a page. It is exported because huma reads only exported
// embedded fields.
type PageInput struct {
	Cursor string `query:"cursor" doc:"nextCursor of the page before."`
	Limit  int    `query:"limit" minimum:"0" maximum:"200" doc:"Most items of a page; default 50."`
}

// Page returns the page that is asked for.
func (p PageInput) Page() previewd.Page { return previewd.Page{Cursor: p.Cursor, Limit: p.Limit} }
