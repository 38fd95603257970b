package previewd

import "time"

// Build is one attempt-series to turn one input into files.
type Build struct {
	ID         string      `json:"id"`
	ProjectID  string      `json:"projectId"`
	Seq        int64       `json:"seq" doc:"Counts 1, 2, 3… per project."`
	Status     BuildStatus `json:"status" enum:"queued,building,canceling,completed,failed,canceled,superseded"`
	Step       string      `json:"step,omitempty" enum:"prepare,install,build,publish" doc:"What a running build is at."`
	Attempt    int         `json:"attempt" doc:"Counts the tries; infrastructure faults are tried again."`
	Epoch      int64       `json:"epoch" doc:"Counts the claims: the fencing token of the build's runner."`
	Prompt     string      `json:"prompt"`
	Template   string      `json:"template,omitempty"`
	Source     Source      `json:"source"`
	Runner     string      `json:"runner,omitempty" enum:"static,bundle,sandbox,docker,gvisor" doc:"What built it."`
	Reason     string      `json:"runnerReason,omitempty" doc:"Why this runner took the tree."`
	Isolation  string      `json:"isolation,omitempty" enum:"none,process,process+landlock,namespace,gvisor" doc:"How the build was confined; none: its commands ran as processes of the server's machine."`
	Cache      string      `json:"cache,omitempty" enum:"hit,miss" doc:"Whether its packages were installed before; absent when it has none that are kept."`
	Failure    *Failure    `json:"failure,omitempty"`
	Packages   int         `json:"packages,omitempty" doc:"How many npm packages it was made with; its packages route lists them."`
	Version    int64       `json:"version,omitempty" doc:"Number of the version that the build made."`
	PreviewURL string      `json:"previewUrl" doc:"Shows this build for ever."`
	// ReferenceID is minted with the build and repeated by every answer about it.
	ReferenceID   string `json:"referenceId" doc:"Name this when you ask about the build."`
	QueuePosition int    `json:"queuePosition,omitempty" doc:"1 is next; absent once the build has begun."`
	// The estimates come from this installation's history, and are absent without one.
	EstimatedCompletionTime    *time.Time   `json:"estimatedCompletionTime,omitempty" doc:"When it is as likely over as not (p50); absent while there is no history to tell it from."`
	EstimatedCompletionTimeP90 *time.Time   `json:"estimatedCompletionTimeP90,omitempty" doc:"When nine of ten such builds are over (p90)."`
	CancelReason               CancelReason `json:"cancelReason,omitempty"`
	SupersededBy               string       `json:"supersededBy,omitempty" doc:"The newer build that took this one's place."`
	Repairs                    string       `json:"repairs,omitempty" doc:"The failed build that this one repairs."`
	QueuedAt                   time.Time    `json:"queuedAt"`
	StartedAt                  *time.Time   `json:"startedAt,omitempty"`
	FinishedAt                 *time.Time   `json:"finishedAt,omitempty"`
	LogBytes                   int64        `json:"logBytes" doc:"Length of the log so far."`

	Replay
}

// Source describes what a build is made from.
type Source struct {
	Digest Digest `json:"digest"`
	Files  int    `json:"files"`
	Bytes  int64  `json:"bytes"`
}

// FailureClass says whose fault a failure is. Only infrastructure faults are
// tried again.
type FailureClass string

// The classes of failures.
const (
	FailureUser         FailureClass = "user"
	FailureTimeout      FailureClass = "timeout"
	FailureInfra        FailureClass = "infra"
	FailureWorkerLost   FailureClass = "worker_lost"
	FailureQueueTimeout FailureClass = "queue_timeout"
)

// Retryable reports whether a build that failed so is worth another attempt.
func (c FailureClass) Retryable() bool { return c == FailureInfra || c == FailureWorkerLost }

// The codes of a Failure.
const (
	FailBundle                = "bundle_error"
	FailBundlerCrashed        = "bundler_crashed"
	FailDependencyUnavailable = "dependency_unavailable"
	FailUnsafePath            = "unsafe_path"
	FailRunnerUnavailable     = "runner_unavailable"
	FailSSRAdapter            = "ssr_adapter_unsupported"
	FailWorkspace             = "workspace_unsupported"
	FailNoIndex               = "no_index_html"
	FailOutputTooLarge        = "output_too_large"
	FailBadConfig             = "bad_config"
	FailInstall               = "install_failed"
	FailBuild                 = "build_failed"
	FailEresolve              = "npm_eresolve"
	FailLockfile              = "lockfile_out_of_sync"
	FailEngine                = "engine_mismatch"
	FailRegistryUnreachable   = "registry_unreachable"
	FailNetworkBlocked        = "network_blocked"
	FailType                  = "type_error"
	FailNoOutputDir           = "no_output_dir"
	FailOOM                   = "oom"
	FailPidsLimit             = "limit_pids"
	FailDiskLimit             = "limit_disk"
	FailOutputLimit           = "limit_output"
	FailInstallTimeout        = "timeout_install"
	FailIdleTimeout           = "timeout_idle"
	FailTimeout               = "timeout_build"
	FailQueueTimeout          = "timeout_queue"
	FailSecrets               = "secrets_unreadable"
	FailInfra                 = "infra"
	FailWorkerLost            = "worker_lost"
)

// Failure says why a build failed: enough for a person, or for the model that
// wrote the code, to act on.
type Failure struct {
	Class   FailureClass `json:"class" enum:"user,timeout,infra,worker_lost,queue_timeout"`
	Code    string       `json:"code"`
	Step    string       `json:"step,omitempty"`
	Message string       `json:"message"`
	Hint    string       `json:"hint,omitempty"`
	File    string       `json:"file,omitempty"`
	Line    int          `json:"line,omitempty" doc:"Counts from 1."`
	Column  int          `json:"column,omitempty" doc:"Counts from 1, in bytes."`
	Excerpt string       `json:"excerpt,omitempty"`
}

// LogChunk is a run of a build's log. Reading on at Next returns what follows.
type LogChunk struct {
	Offset   int64
	Next     int64
	Data     []byte
	Complete bool // the build is over and Next is the end of its log
}
