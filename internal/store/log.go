package store

import (
	"context"

	"github.com/previewd/previewd"
)

// AppendLog stores a run of a build's log at exactly its end so far. The guard
// on epoch keeps a runner that has lost the build from writing into it.
func (db *DB) AppendLog(ctx context.Context, lease previewd.Lease, offset int64, data []byte) (appended bool, err error) {
	n, err := db.exec(ctx, `
		UPDATE worker_builds SET log_bytes = log_bytes + $4
		WHERE id = $1 AND epoch = $2 AND state IN ('building', 'canceling') AND log_bytes = $3`,
		lease.BuildID, lease.Epoch, offset, len(data))
	if err != nil || n == 0 {
		return false, err
	}
	_, err = db.exec(ctx, `INSERT INTO worker_build_logs (build_id, start_offset, data) VALUES ($1, $2, $3)`,
		lease.BuildID, offset, data)
	return true, err
}

// ReadLog returns the log's bytes from offset, at most about limit of them.
func (db *DB) ReadLog(ctx context.Context, buildID string, offset int64, limit int) ([]byte, error) {
	type run struct {
		start int64
		data  []byte
	}
	// The run that holds offset begins at or before it.
	runs, err := all(ctx, db, func(r rows) (x run, err error) {
		err = r.Scan(&x.start, &x.data)
		return x, err
	}, `
		SELECT start_offset, data FROM worker_build_logs
		WHERE build_id = $1 AND start_offset >= (
			SELECT COALESCE(MAX(start_offset), 0) FROM worker_build_logs WHERE build_id = $1 AND start_offset <= $2)
		ORDER BY start_offset LIMIT 64`, buildID, offset)
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, x := range runs {
		if skip := offset - x.start; skip > 0 {
			x.data = x.data[min(skip, int64(len(x.data))):]
		}
		out = append(out, x.data...)
	}
	return out[:min(len(out), limit)], nil
}
