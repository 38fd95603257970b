package app

import (
	"log/slog"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
)

// problems keeps the problems that are answered, those of each role in its
// database.
type problems map[previewd.Role]*httpx.References

// newProblems takes the worker's database and the gateway's, which may be one, or
// nil when this is no gateway.
func newProblems(own, users *store.DB, log *slog.Logger) problems {
	all := httpx.NewReferences(httpx.ReferencesConfig{Store: own, Log: log})
	p := problems{previewd.RoleWorker: all, previewd.RoleGateway: all}
	if users != nil && users != own {
		p[previewd.RoleGateway] = httpx.NewReferences(httpx.ReferencesConfig{Store: users, Log: log})
	}
	return p
}

// Record implements httpx.Recorder.
func (p problems) Record(ref httpx.Reference) { p[ref.Role].Record(ref) }

// each returns every recorder once.
func (p problems) each() []*httpx.References {
	if p[previewd.RoleWorker] == p[previewd.RoleGateway] {
		return []*httpx.References{p[previewd.RoleWorker]}
	}
	return []*httpx.References{p[previewd.RoleWorker], p[previewd.RoleGateway]}
}

// countProblems shows how the recorders do.
func (m *metrics) countProblems(p problems) {
	sum := func(pick func(recorded, dropped int64) int64) func() int64 {
		return func() (n int64) {
			for _, r := range p.each() {
				n += pick(r.Counts())
			}
			return n
		}
	}
	m.registry.MustRegister(
		counter("previewd_problems_total", "Problems that were answered and kept under their reference ids.",
			sum(func(recorded, _ int64) int64 { return recorded })),
		counter("previewd_problems_dropped_total", "Problems that were answered and not kept: too many at once.",
			sum(func(_, dropped int64) int64 { return dropped })))
}
