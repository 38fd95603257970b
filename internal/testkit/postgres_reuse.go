package testkit

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
)

// content is what a database holds.
type content struct {
	tables string            // a hash of all columns, constraints, indexes, triggers and functions
	rows   map[string]string // as a JSON array, by table
}

const hashTables = `
	SELECT md5(string_agg(part, E'\n' ORDER BY part)) FROM (
		SELECT concat(c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull) AS part
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
		UNION ALL SELECT concat(conrelid::regclass, conname, pg_get_constraintdef(oid))
		FROM pg_constraint WHERE connamespace = 'public'::regnamespace
		UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
		UNION ALL SELECT concat(pg_get_triggerdef(oid), tgenabled) FROM pg_trigger WHERE NOT tgisinternal
		UNION ALL SELECT concat(proname, prosrc) FROM pg_proc WHERE pronamespace = 'public'::regnamespace) AS parts`

// usedTables are those that hold rows or have held some.
func usedTables(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, `
		SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) > 0`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func (s *PostgresServer) readContent(ctx context.Context, database string) (content, error) {
	c := content{rows: map[string]string{}}
	conn, err := pgx.Connect(ctx, s.named(database))
	if err != nil {
		return c, err
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, hashTables).Scan(&c.tables); err != nil {
		return c, err
	}
	used, err := usedTables(ctx, conn)
	for _, table := range used {
		var rows string
		if err := conn.QueryRow(ctx, "SELECT COALESCE(json_agg(t), '[]') FROM "+table+" t").Scan(&rows); err != nil {
			return c, err
		}
		c.rows[table] = rows
	}
	return c, err
}

// muchLeft is from where on a database is dropped sooner than emptied, in bytes.
const muchLeft = 32 << 20

// makeNew gives a database the rows of the template, and no others. It returns
// false when its tables are not the template's any more, or have grown much.
func (s *PostgresServer) makeNew(ctx context.Context, database string) (bool, error) {
	conn, err := pgx.Connect(ctx, s.named(database))
	if err != nil {
		return false, err
	}
	defer conn.Close(ctx)
	var tables string
	var size int64
	err = conn.QueryRow(ctx, "SELECT ("+hashTables+"), pg_database_size(current_database())").Scan(&tables, &size)
	if err != nil || tables != databases.fresh.tables || size > muchLeft {
		return false, err
	}
	used, err := usedTables(ctx, conn)
	if err != nil {
		return false, err
	}
	var b strings.Builder
	b.WriteString("BEGIN; SET LOCAL session_replication_role = replica;") // no foreign keys, no triggers
	for _, table := range used {
		b.WriteString("DELETE FROM " + table + ";")
	}
	for table, rows := range databases.fresh.rows {
		b.WriteString("INSERT INTO " + table + " SELECT * FROM json_populate_recordset(NULL::" + table + ", '" + strings.ReplaceAll(rows, "'", "''") + "');")
	}
	b.WriteString("COMMIT")
	_, err = conn.Exec(ctx, b.String())
	return err == nil, err
}
