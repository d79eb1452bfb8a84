package pgstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/agrenting/agrenting-go"
)

// channel is the channel of notifications. Their payload is the name of a row.
const channel = "agrenting_records"

// records is a store without a seal.
type records struct {
	pool     *pgxpool.Pool
	name     string
	table    string // quoted
	timeout  time.Duration
	poll     time.Duration
	listener *listener // nil without WithListen

	load, insert, update string
}

// The statements change one row, and notify the listeners of the change. They also change
// the row if an earlier attempt of the same Save has written it: PostgreSQL commits locally
// if an attempt is canceled that waits for a synchronous standby, and the next commit must
// wait again. They raise synchronous_commit for their own transaction. None depends on a
// prepared statement or on the session, so all work through a transaction pooler.
const (
	loadSQL = `SELECT pg_is_in_recovery(), r.revision, r.data FROM (SELECT 1) AS one LEFT JOIN %s AS r ON r.name = $1`

	insertSQL = `WITH put AS (INSERT INTO %s AS r (name, data, revision, updated_at) VALUES ($1, $2, $3, now())` +
		` ON CONFLICT (name) DO UPDATE SET updated_at = now() WHERE r.revision = $3 RETURNING r.name)` + committedSQL

	updateSQL = `WITH put AS (UPDATE %s SET data = $2, revision = $3, updated_at = now()` +
		` WHERE name = $1 AND revision IN ($3, $4) RETURNING name)` + committedSQL

	committedSQL = ` SELECT pg_notify('` + channel + `', put.name),` +
		` CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')` +
		` THEN set_config('synchronous_commit', 'on', true) END FROM put`

	schemaSQL = `CREATE TABLE IF NOT EXISTS %s (
	name       text PRIMARY KEY,
	data       bytea NOT NULL,
	revision   bigint NOT NULL,
	updated_at timestamptz NOT NULL
)`
)

func newRecords(pool *pgxpool.Pool, name string, o options) *records {
	table := pgx.Identifier(strings.Split(o.table, ".")).Sanitize()
	return &records{
		pool: pool, name: name, table: table, timeout: o.timeout, poll: o.poll,
		load: fmt.Sprintf(loadSQL, table), insert: fmt.Sprintf(insertSQL, table), update: fmt.Sprintf(updateSQL, table),
	}
}

func (r *records) String() string { return "pgstore(" + r.name + ")" }

// ShowsNoSecret lets errors of the seal name the store.
func (*records) ShowsNoSecret() {}

func (r *records) row(name string) string { return r.name + "/" + name }

func (r *records) schema() string { return fmt.Sprintf(schemaSQL, r.table) + ";\n" }

func (r *records) createSchema(ctx context.Context) error {
	return r.try(ctx, "create the table", func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, r.schema(), pgx.QueryExecModeSimpleProtocol)
		return err
	})
}

func revision(n int64) agrenting.Revision { return agrenting.Revision(strconv.FormatInt(n, 10)) }

// newRevision returns a random revision. It does not recur, even after the database
// was restored from a backup, and a Save recognizes its own row by it.
func newRevision() (int64, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).SetUint64(1<<63-1))
	if err != nil {
		return 0, err
	}
	return n.Int64() + 1, nil
}

// parse returns the number of a revision, 0 for one that no store has returned. No row
// has the number 0.
func parse(rev agrenting.Revision) int64 {
	n, err := strconv.ParseInt(string(rev), 10, 64)
	if err != nil || n < 0 || revision(n) != rev {
		return 0
	}
	return n
}

func (r *records) Load(ctx context.Context, name string) (rec agrenting.Record, err error) {
	var n int64
	err = r.try(ctx, "load", func(ctx context.Context, conn *pgx.Conn) (err error) {
		n, rec.Data, err = r.get(ctx, conn, name)
		return err
	})
	if err != nil {
		return agrenting.Record{}, err
	}
	if n == 0 {
		return agrenting.Record{}, fmt.Errorf("%w: %v has no %q", agrenting.ErrNoRecord, r, name)
	}
	rec.Revision = revision(n)
	return rec, nil
}

// get returns a record and its revision, 0 if there is none.
func (r *records) get(ctx context.Context, conn *pgx.Conn, name string) (n int64, data []byte, err error) {
	var (
		standby bool
		found   *int64
	)
	err = conn.QueryRow(ctx, r.load, pgx.QueryExecModeExec, r.row(name)).Scan(&standby, &found, &data)
	switch {
	case err != nil:
		return 0, nil, err
	case standby: // which may lag behind
		return 0, nil, errStandby
	case found == nil:
		return 0, nil, nil
	}
	return *found, data, nil
}

func (r *records) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	if ctx.Err() != nil {
		return "", fmt.Errorf("%v: save: %w", r, context.Cause(ctx))
	}
	conflict := fmt.Errorf("%w: %v: %q has another revision", agrenting.ErrConflictingWrite, r, name)
	next, err := newRevision()
	if err != nil {
		return "", err
	}
	sql, args := r.insert, []any{pgx.QueryExecModeExec, r.row(name), append([]byte{}, data...), next}
	if previous != "" {
		sql, args = r.update, append(args, parse(previous))
	}
	err = r.try(ctx, "save", func(ctx context.Context, conn *pgx.Conn) error {
		tag, err := conn.Exec(ctx, sql, args...)
		if err == nil && tag.RowsAffected() == 0 {
			return conflict
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return revision(next), nil
}

var errStandby = errors.New("the server is a standby, which may return outdated records. " +
	"Connect to the primary, for example with target_session_attrs=primary")
