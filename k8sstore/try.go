package k8sstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/agrenting/agrenting-go"
)

// ErrUnavailable means that the API server did not respond in time, or responded that
// it cannot do so now.
var ErrUnavailable = errors.New("k8sstore: the API server is not available")

const (
	// firstAttempt is the part of the timeout that the first attempt may take. Each
	// further one may take twice as long as the one before.
	firstAttempt = 5
	minPause     = 20 * time.Millisecond
	maxPause     = 500 * time.Millisecond
	// maxSilence is the wait for a response after which a deadline closes the connections. It
	// is shorter than the second that the holder of a lease gives each operation. With a short
	// timeout, half of the first attempt is enough.
	maxSilence = 500 * time.Millisecond
)

// try calls f until it succeeds, fails for good, or the time is over.
func (r *records) try(ctx context.Context, what, secret string, f func(ctx context.Context) error) error {
	limited, cancel := context.WithTimeout(quiet(ctx), r.timeout)
	defer cancel()
	var last error
	limit := r.timeout / firstAttempt
	for pause := minPause; limited.Err() == nil; limit, pause = 2*limit, min(2*pause, maxPause) {
		attempt, stop := context.WithTimeout(limited, limit)
		err := f(attempt)
		stop()
		if err == nil || !transient(err) {
			return r.wrap(what, secret, err)
		}
		if last == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = err // another error says more than a deadline
		}
		sleep(limited, jitter(pause))
	}
	last = cleaned(last)
	switch {
	case ctx.Err() != nil && last == nil:
		return fmt.Errorf("%v: %s: %w", r, what, context.Cause(ctx))
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %v: %s: %w; last: %w", ErrUnavailable, r, what, context.Cause(ctx), last)
	default:
		return fmt.Errorf("%w: %v: %s: no success within %v: %w", ErrUnavailable, r, what, r.timeout, last)
	}
}

// quiet returns a context with which client-go does not log. By default, it writes failed
// attempts to standard error.
func quiet(ctx context.Context) context.Context { return klog.NewContext(ctx, logr.Discard()) }

// transient reports whether another attempt may help.
func transient(err error) bool {
	for _, final := range []error{agrenting.ErrConflictingWrite, agrenting.ErrInvalidRecord} {
		if errors.Is(err, final) {
			return false
		}
	}
	switch c := code(err); c {
	case 0:
		_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
		return !untrusted
	case http.StatusConflict, http.StatusTooManyRequests:
		return true
	default:
		return c >= http.StatusInternalServerError
	}
}

// code returns the HTTP status of a response of the API server, 0 for other errors.
func code(err error) int32 {
	if e, ok := errors.AsType[*apierrors.StatusError](err); ok {
		return e.ErrStatus.Code
	}
	return 0
}

// denied matches how the API server says that an account lacks a permission.
var denied = regexp.MustCompile(`cannot [a-z]+ resource "secrets"`)

// isDenied reports whether the service account lacks a permission. Quotas, admission
// webhooks, and namespaces that are being deleted cause a 403, too.
func isDenied(err error) bool { return apierrors.IsForbidden(err) && denied.MatchString(err.Error()) }

// wrap adds what was being done, and what can be done about it.
func (r *records) wrap(what, secret string, err error) error {
	if err == nil || errors.Is(err, agrenting.ErrConflictingWrite) || errors.Is(err, agrenting.ErrInvalidRecord) {
		return err
	}
	hint := ""
	switch {
	case isDenied(err):
		hint = fmt.Sprintf(". The service account needs get, update, and watch on the Secret %q in the namespace %q, "+
			"and create on secrets", secret, r.namespace)
	case apierrors.IsUnauthorized(err):
		hint = ". The API server does not accept the credentials of Config.REST, or those of the service account"
	case code(err)/100 == 3:
		hint = ". The server redirects. Set Config.REST.Host to the address of the API server"
	case isMissing(err):
		hint = fmt.Sprintf(". Create the namespace %q, or set Config.Namespace", r.namespace)
	}
	return fmt.Errorf("%v: %s: %w%s", r, what, cleaned(err), hint)
}

// secretLike matches what may be a part of a record.
var secretLike = regexp.MustCompile(`[A-Za-z0-9+/_=]{20,}`)

// cleaned returns an error without what the API server may have quoted from a request:
// an admission webhook may quote the Secret.
func cleaned(err error) error {
	e, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return err
	}
	status := e.ErrStatus
	text := secretLike.ReplaceAllString(status.Message, "[hidden]")
	if len(text) > 500 {
		text = text[:500] + "…"
	}
	clean := &apierrors.StatusError{ErrStatus: metav1.Status{Status: status.Status, Code: status.Code, Reason: status.Reason, Message: text}}
	if errors.Is(err, agrenting.ErrReadOnlyStore) {
		return fmt.Errorf("%w: %w", agrenting.ErrReadOnlyStore, clean)
	}
	return clean
}

// jitter varies d by up to a quarter.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + rand.Float64()/2)) // #nosec G404 -- not a secret
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
