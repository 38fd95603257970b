package httpx

import (
	"github.com/danielgtaylor/huma/v2"

	"github.com/previewd/previewd"
)

// ReadLogInput asks for a piece of a build's log.
type ReadLogInput struct {
	BuildID string `path:"buildId"`
	Offset  int64  `query:"offset" minimum:"0" doc:"Byte to begin at: 0, or what Log-Next-Offset said."`
	Limit   int    `query:"limit" minimum:"0" maximum:"262144" doc:"Most bytes to return; default 262144."`
}

// ReadLogOutput is a piece of a build's log.
type ReadLogOutput struct {
	ContentType string `header:"Content-Type"`
	Next        int64  `header:"Log-Next-Offset" doc:"Where to read on."`
	Complete    bool   `header:"Log-Complete" doc:"true when the build is over and this is the end of its log."`
	Body        []byte
}

// LogOutput answers with a piece of a log.
func LogOutput(chunk *previewd.LogChunk) *ReadLogOutput {
	return &ReadLogOutput{ContentType: "text/plain; charset=utf-8", Next: chunk.Next, Complete: chunk.Complete, Body: chunk.Data}
}

// LogText describes an operation that answers with a log.
func LogText(o huma.Operation) huma.Operation {
	o.Responses = map[string]*huma.Response{"200": {
		Description: "The log's bytes from offset on.",
		Content:     map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}},
	}}
	return o
}
