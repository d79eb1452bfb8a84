package secret_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
)

func withoutValue(text string) string { return secret.Redact(text, value) }

// dumpError shows nothing in its text.
type dumpError struct{ Dump string }

func (dumpError) Error() string { return "not sent" }

// causeError is an error of a library from before Go 1.13.
type causeError struct{ cause error }

func (causeError) Error() string  { return "not sent" }
func (e causeError) Cause() error { return e.cause }

type slowError struct{ text string }

func (e *slowError) Error() string { return e.text }
func (*slowError) Timeout() bool   { return true }
func (*slowError) Temporary() bool { return true }

// shown is all that fmt prints of an error and what it wraps.
func shown(err error) string {
	text := fmt.Sprintf("%v %+v %#v %q %x\n", err, err, err, err, err)
	switch e := err.(type) { //nolint:errorlint // each error of the tree is printed
	case interface{ Unwrap() error }:
		if e := e.Unwrap(); e != nil {
			text += shown(e)
		}
	case interface{ Unwrap() []error }:
		for _, e := range e.Unwrap() {
			text += shown(e) //nolint:perfsprint // a few errors
		}
	}
	return text
}

func TestCleanError_showsNoSecret(t *testing.T) {
	t.Parallel()
	quoting := errors.New("sent " + value)
	for name, err := range map[string]error{
		"text":           quoting,
		"wrapped":        fmt.Errorf("a: %w", fmt.Errorf("b: %w", quoting)),
		"hidden beneath": &url.Error{Op: "Get", URL: "https://a.test", Err: &dumpError{value}},
		"field":          &dumpError{value},
		"value":          dumpError{value},
		"cause":          causeError{quoting},
		"joined":         errors.Join(io.EOF, fmt.Errorf("x: %w", errors.Join(quoting, io.ErrUnexpectedEOF))),
		"several":        fmt.Errorf("%w and %w", io.EOF, quoting),
		"URL":            &url.Error{Op: "Get", URL: "https://a.test?api_key=" + url.QueryEscape(value), Err: io.EOF},
		"operation":      &net.OpError{Op: "write", Net: "tcp", Err: quoting},
		"path":           &os.PathError{Op: "open", Path: value, Err: os.ErrNotExist},
		"timeout":        &slowError{value},
		"huge":           errors.New(strings.Repeat("word ", 1<<20) + value),
		"cut":            errors.New(strings.Repeat("x", 4<<10-10) + value),
		"deep":           deep(quoting, 1000),
		"wide":           errors.Join(slicesOf(quoting, 1000)...),
	} {
		out := secret.CleanError(err, withoutValue)
		require.Error(t, out, name)
		noLeak(t, shown(out))
		assert.LessOrEqual(t, len(out.Error()), 64<<10, name)
		switch err.(type) { //nolint:errorlint // this one, not what it wraps
		case *url.Error, *net.OpError: // a copy replaces it
		default:
			require.ErrorIs(t, out, err, name)
		}
	}
}

func deep(err error, n int) error {
	for range n {
		err = fmt.Errorf("%w", err)
	}
	return err
}

func slicesOf(err error, n int) (out []error) {
	for range n {
		out = append(out, err)
	}
	return out
}

func TestCleanError_withoutSecret_isUnchanged(t *testing.T) {
	t.Parallel()
	require.NoError(t, secret.CleanError(nil, withoutValue))
	for _, err := range []error{
		io.EOF, context.DeadlineExceeded, fmt.Errorf("a: %w", io.EOF), errors.Join(io.EOF, http.ErrAbortHandler),
		&net.OpError{Op: "dial", Net: "tcp", Err: io.EOF}, &url.Error{Op: "Get", URL: "https://a.test/x?y=z", Err: io.EOF},
		&dumpError{},
		causeError{},
		causeError{io.EOF},
		&slowError{"late"},
	} {
		out := secret.CleanError(err, withoutValue)
		assert.Equal(t, fmt.Sprintf("%#v", err), fmt.Sprintf("%#v", out))
		assert.True(t, out == err, "%v", err) //nolint:errorlint,testifylint // it is the same
	}
}

func TestCleanError_matchesSameTargets(t *testing.T) {
	t.Parallel()
	op := &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded}
	quoting := fmt.Errorf("%s: %w", value, op)
	for name, err := range map[string]error{
		"one":     quoting,
		"several": errors.Join(io.EOF, quoting),
		"URL":     &url.Error{Op: "Get", URL: "https://a.test/" + url.PathEscape(value), Err: op},
		"beneath": &url.Error{Op: "Get", URL: "https://a.test/", Err: quoting},
	} {
		out := secret.CleanError(err, withoutValue)
		require.ErrorIs(t, out, context.DeadlineExceeded, name)
		found, ok := errors.AsType[*net.OpError](out)
		require.True(t, ok, name)
		assert.Same(t, op, found, name)
		if name == "URL" || name == "beneath" {
			ue, ok := errors.AsType[*url.Error](out)
			require.True(t, ok, name)
			assert.Equal(t, name == "URL", ue.Timeout(), name)
			noLeak(t, ue.URL)
		}
	}
	out := secret.CleanError(&net.OpError{Op: "write", Net: "tcp", Err: &slowError{value}}, withoutValue)
	found, ok := errors.AsType[net.Error](out)
	require.True(t, ok)
	assert.True(t, found.Timeout())
	found, ok = errors.AsType[net.Error](secret.CleanError(&slowError{value}, withoutValue))
	require.True(t, ok)
	assert.True(t, found.Timeout() && found.Temporary()) //nolint:staticcheck // it is passed on
	_, ok = errors.AsType[net.Error](secret.CleanError(errors.New(value), withoutValue))
	assert.False(t, ok)
}

func TestCleanPanic(t *testing.T) {
	t.Parallel()
	for _, value := range []any{http.ErrAbortHandler, "text", 7, &dumpError{}, fmt.Errorf("a: %w", io.EOF), struct{}{}} {
		out, same := secret.CleanPanic(value, withoutValue)
		assert.True(t, same)
		assert.Equal(t, value, out)
	}
	for _, value := range []any{
		"sent " + value, errors.New(value),
		dumpError{value},
		&dumpError{value},
		struct{ Header http.Header }{http.Header{"X": {value}}},
		[]string{value},
		fmt.Errorf("%s: %w", value, http.ErrAbortHandler),
	} {
		out, same := secret.CleanPanic(value, withoutValue)
		assert.False(t, same)
		noLeak(t, fmt.Sprintf("%v %+v %#v", out, out, out))
	}
}

func TestRedactLikely(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c", "Zq7Wm3Xp9Rt5Kv2Ln8Yd4", "Zq7Wm3Xp9Rt5Kv2Ln8Bc4Df6Gh1Jk0Ms",
		"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "mfrggzdfmztwq2lknnwg23tpoa2gk43u", "sk_sandbox_abcdefgh", "ap_abcdefghijklmnop",
		"nEwNeWnEw7Zq8Xw9Cv0Bn1Mm2Ll3Kk4Jj5", "kH-aG2_x9Lm3-Qw8Ertz7Yb1",
	} {
		for _, text := range []string{"%s", "denied for %s", "key=%s,", `{"a":"%s"}`, "(%s)", "read %s: EOF"} {
			assert.NotContains(t, secret.RedactLikely(fmt.Sprintf(text, s)), s)
		}
	}
	for _, text := range []string{
		"op: cannot reach the vault at https://vault.example.com:8200/v1/secret/data/agrenting-production",
		"request 6ba7b810-9dad-11d1-80b4-00c04fd430c8 failed", "AccessDeniedException2: ResourceNotFoundException",
		"open /var/run/secrets/kubernetes.io/serviceaccount/namespace: permission denied", "arn:aws:secretsmanager:eu-west-1:123456789012",
		"InvalidClientTokenId", "2026-11-27T14:44:04Z", "CREDENTIAL_PROVIDER_NOT_CONFIGURED", "agrenting-production-secret-2024",
		"dial tcp 127.0.0.1:8200: connect: connection refused", "sha256:1a2b3c4d5e",
	} {
		assert.Equal(t, text, secret.RedactLikely(text))
	}
}

func TestIsCode(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"NOT_FOUND", "VALIDATION_ERROR", "ROUTE_NOT_FOUND", "invalid_request", "OAUTH2", "rate-limited", "E404", "IDEMPOTENCY_PENDING", "auth.expired", "422",
	} {
		assert.True(t, secret.IsCode(s), s)
	}
	for _, s := range []string{
		"", " ", "a b", value, "Zq7Wm3Xp9Rt5Kv2Ln8Yd4", "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c", "0F1E2D3C4B5A69788796A5B4C3D2E1F0",
		"MFRGGZDFMZTWQ2LKNNWG23TPOA2GK43U", "nEwNeW", "sk_live_abcdefgh", "ap_abcdefghijklmnop", strings.Repeat("A", 21),
		"ÄRGER", "NEW\n", "tok-1a2b3c", "12345678", strings.Repeat("AB_", 30) + "A",
	} {
		assert.False(t, secret.IsCode(s), s)
	}
	assert.True(t, secret.IsPlain(`{"pricing_model":["is not valid"],"name":["Must have at least 3 characters."]}`))
	assert.True(t, secret.IsPlain(""))
	assert.False(t, secret.IsPlain(`{"key":"Zq7Wm3Xp9Rt5Kv2Ln8Yd4"}`))
	assert.False(t, secret.IsPlain(`{"key":"\u0061\u0062"}`))
}
