package httpx

import "github.com/previewd/previewd"

// EnvList is the variables of a project.
type EnvList struct {
	Variables []previewd.EnvVar `json:"variables" nullable:"false" doc:"By name."`
}

// EnvInput names a variable.
type EnvInput struct {
	ProjectID string `path:"projectId"`
	Name      string `path:"name" doc:"1 to 128 of A-Z a-z 0-9 _, beginning with no digit. Names that decide which programs run or where packages come from, such as PATH, NODE_OPTIONS and npm_config_*, are refused." example:"API_URL"`
}

// SetEnvInput is a variable.
type SetEnvInput struct {
	EnvInput
	Body SetEnvBody
}

// SetEnvBody is what a variable is made of. Its bounds are checked where no answer
// repeats what was sent.
type SetEnvBody struct {
	Value  string              `json:"value" doc:"UTF-8 text without NUL, at most 32 KiB. A secret has at least 8 bytes besides white space."`
	Secret bool                `json:"secret,omitempty" doc:"Stored encrypted, told by nothing, hidden in logs and failures, and never put into pages by the bundler. A variable that is one stays one until it is removed: without this it is not set again."`
	Scopes []previewd.EnvScope `json:"scopes,omitempty" nullable:"false" enum:"install,build" doc:"Which commands are given it. Default: build." example:"[\"build\"]"`
}

// Request returns what the worker is asked for.
func (in *SetEnvInput) Request(caller previewd.Caller) previewd.SetEnvRequest {
	return previewd.SetEnvRequest{
		ProjectID: in.ProjectID, Name: in.Name, Value: previewd.Hidden(in.Body.Value), Secret: in.Body.Secret, Scopes: in.Body.Scopes, Caller: caller,
	}
}
