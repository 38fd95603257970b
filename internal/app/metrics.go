package app

import (
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
	"github.com/previewd/previewd/internal/worker"
)

// metrics are what /metrics shows. Each server has its own registry.
type metrics struct {
	registry   *prometheus.Registry
	violations *prometheus.GaugeVec
	checkedAt  prometheus.Gauge
}

func newMetrics(version string, db *store.DB) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		violations: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "previewd_invariant_violations", Help: "How many rows or files broke a promise at the last check; anything but 0 is a fault.",
		}, []string{"name"}),
		checkedAt: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "previewd_invariant_check_timestamp_seconds", Help: "When the promises were last checked; 0 before the first check.",
		}),
	}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "previewd_build_info", Help: "1, with the program's version and the engine of its database.",
	}, []string{"version", "engine"})
	info.WithLabelValues(version, db.Engine()).Set(1)
	m.registry.MustRegister(m.violations, m.checkedAt, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func counter(name, help string, value func() int64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
}

// watchWorker shows what the worker counts.
func (m *metrics) watchWorker(w *worker.Service) {
	counts := w.Counts()
	m.registry.MustRegister(&queueCollector{db: w.Store},
		counter("previewd_legacy_client_ids_total", "Projects made with an id of the client's.", counts.LegacyIDs.Load),
		counter("previewd_create_replays_total", "Creates that were answered before.", counts.Replays.Load))
}

// queueCollector asks the database at each scrape: the queue is shared with
// other servers. While the database does not answer it shows nothing.
type queueCollector struct{ db *store.DB }

var (
	queueWaiting = prometheus.NewDesc("previewd_queue_waiting", "Builds that wait, of all servers.", nil, nil)
	queueRunning = prometheus.NewDesc("previewd_queue_running", "Builds that run, of all servers.", nil, nil)
)

// Describe implements prometheus.Collector.
func (q *queueCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- queueWaiting
	descs <- queueRunning
}

// Collect implements prometheus.Collector.
func (q *queueCollector) Collect(found chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for desc, count := range map[*prometheus.Desc]func(context.Context) (int, error){
		queueWaiting: q.db.CountWaiting, queueRunning: q.db.CountRunning,
	} {
		if n, err := count(ctx); err == nil {
			found <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n))
		}
	}
}

// handler needs a service token wherever others than this machine can ask.
func (m *metrics) handler(listening net.Addr, callers httpx.Callers) http.Handler {
	h := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	if tcp, ok := listening.(*net.TCPAddr); ok && tcp.IP.IsLoopback() {
		return h
	}
	return httpx.WithService(callers, previewd.ScopeOperate, h)
}

func (m *metrics) show(found *previewd.Integrity) {
	for _, check := range found.Checks {
		m.violations.WithLabelValues(check.Name).Set(float64(check.Count))
	}
	m.checkedAt.Set(float64(found.CheckedAt.UnixMicro()) / 1e6)
}

const (
	firstCheck = time.Minute
	checkEvery = 15 * time.Minute
)

// watchIntegrity checks the promises from time to time until ctx ends. Servers
// that share a database do it at different moments.
func (a *App) watchIntegrity(ctx context.Context) error {
	for wait := firstCheck; ; wait = checkEvery {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait + rand.N(wait/4)):
		}
		a.checkIntegrity(ctx)
	}
}

func (a *App) checkIntegrity(ctx context.Context) {
	found, err := a.findIntegrity(ctx)
	if err != nil {
		if ctx.Err() == nil {
			a.log.ErrorContext(ctx, "checking promises failed", telemetry.Error, err)
		}
		return
	}
	a.metrics.show(found)
	for _, check := range previewd.Broken(found.Checks) {
		a.log.ErrorContext(ctx, "promise broken", "name", check.Name, "count", check.Count, "examples", check.Examples)
	}
}

// findIntegrity checks the promises of all databases that this process works on.
func (a *App) findIntegrity(ctx context.Context) (*previewd.Integrity, error) {
	began := time.Now()
	var checks []previewd.Check
	if a.Worker != nil {
		found, err := a.Worker.CheckIntegrity(ctx)
		if err != nil || a.Users == nil {
			return found, err
		}
		checks = found.Checks
	}
	if a.Users != a.Store || a.Worker == nil {
		more, err := a.Users.CheckIntegrity(ctx)
		if err != nil {
			return nil, err
		}
		checks = append(checks, more...)
	}
	if a.Worker == nil {
		return previewd.NewIntegrity(began, checks), nil
	}
	agree, err := databases{a.Store, a.Users}.checkAgreement(ctx)
	return previewd.NewIntegrity(began, append(checks, agree...)), err
}
