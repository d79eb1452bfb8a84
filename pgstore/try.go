package pgstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"github.com/agrenting/agrenting-go"
)

// ErrUnavailable means that PostgreSQL could not be reached, or did not respond
// in time.
var ErrUnavailable = errors.New("pgstore: PostgreSQL is not available")

const (
	// attempts is how many silent connections an operation may meet.
	attempts = 4
	minPause = 20 * time.Millisecond
	maxPause = 500 * time.Millisecond
)

// Codes of errors of PostgreSQL.
const (
	uniqueViolation       = "23505"
	duplicateTable        = "42P07"
	duplicateObject       = "42710"
	readOnlyTransaction   = "25006"
	insufficientPrivilege = "42501"
	undefinedTable        = "42P01"
	invalidSchema         = "3F000"
)

// try calls f with a connection until it succeeds, fails for good, or the time is
// over.
func (r *records) try(ctx context.Context, what string, f func(ctx context.Context, conn *pgx.Conn) error) error {
	limited, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var last error
	for pause := minPause; limited.Err() == nil; pause = min(2*pause, maxPause) {
		err := r.attempt(limited, f)
		if err == nil {
			return nil
		}
		if !transient(err) {
			return r.explain(what, err)
		}
		if last == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = err // more specific than a deadline
		}
		sleep(limited, jitter(pause))
	}
	cause := fmt.Errorf("no success within %v", r.timeout)
	if ctx.Err() != nil {
		cause = context.Cause(ctx)
	}
	if last == nil {
		return fmt.Errorf("%v: %s: %w", r, what, cause)
	}
	return fmt.Errorf("%w: %v: %s: %w: %w", ErrUnavailable, r, what, cause, last)
}

func (r *records) attempt(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout/attempts)
	defer cancel()
	conn, err := r.pool.Acquire(ctx)
	if err != nil {
		return withoutConfig(err)
	}
	defer conn.Release()
	err = f(ctx, conn.Conn())
	if code(err) == readOnlyTransaction && isStandby(ctx, conn.Conn()) {
		err = errStandby
	}
	if errors.Is(err, errStandby) {
		_ = conn.Conn().Close(ctx) // the pool connects again, perhaps to the new primary
	}
	return err
}

// isStandby reports whether a connection leads to a standby. Otherwise, transactions are
// read-only because of a setting.
func isStandby(ctx context.Context, conn *pgx.Conn) (standby bool) {
	err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()", pgx.QueryExecModeExec).Scan(&standby)
	return err == nil && standby
}

// withoutConfig removes the configuration, which has the password, from an error.
func withoutConfig(err error) error {
	if e, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return fmt.Errorf("connect as user %q to database %q: %w", e.Config.User, e.Config.Database, e.Unwrap())
	}
	return err
}

// code returns the code of an error of PostgreSQL, "" for other errors.
func code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// explain adds what failed, and what to do.
func (r *records) explain(what string, err error) error {
	if errors.Is(err, agrenting.ErrConflictingWrite) {
		return err
	}
	err = fmt.Errorf("%v: %s: %w", r, what, err)
	switch code(err) {
	case undefinedTable, invalidSchema:
		return fmt.Errorf("%w. Create the table with Store.CreateSchema", err)
	case readOnlyTransaction:
		return fmt.Errorf("%w: %w. Connect to the primary, as a user whose transactions may write", agrenting.ErrReadOnlyStore, err)
	case insufficientPrivilege:
		if what == "save" {
			err = fmt.Errorf("%w: %w", agrenting.ErrReadOnlyStore, err)
		}
		return fmt.Errorf("%w. The user needs SELECT, INSERT and UPDATE on the table %s", err, r.table)
	}
	return err
}

// transient reports whether another attempt may help.
func transient(err error) bool {
	if errors.Is(err, agrenting.ErrConflictingWrite) || errors.Is(err, puddle.ErrClosedPool) {
		return false
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	c := code(err)
	if len(c) < 2 {
		return true // the connection could not be made, or was lost
	}
	switch c[:2] {
	case "08", // connection exception
		"40", // transaction rollback, such as a deadlock
		"53", // insufficient resources, such as too many connections
		"55", // not in the required state, such as a lock that is not available
		"57", // operator intervention, such as a shutdown
		"58": // system error
		return true
	}
	// Two processes create the table at the same time.
	return c == uniqueViolation || c == duplicateTable || c == duplicateObject
}

// jitter varies d by up to a quarter.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1) // #nosec G404 -- not a secret
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
