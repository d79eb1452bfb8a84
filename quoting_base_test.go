package agrenting_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
)

// quotes are ways in which a base transport quotes the request that it was given.
var quotes = map[string]func(*http.Request) error{
	"header":          func(r *http.Request) error { return fmt.Errorf("sent %v", r.Header) },
	"request":         func(r *http.Request) error { return fmt.Errorf("sent %+v", r) },
	"quoted header":   func(r *http.Request) error { return fmt.Errorf("sent %q and %#v", r.Header, r.Header) },
	"dump":            func(r *http.Request) error { return errors.New(dump(r)) },
	"URL":             urlError,
	"hex and base64":  func(r *http.Request) error { return errors.New(encoded(r)) },
	"curl":            func(r *http.Request) error { return errors.New(curl(r)) },
	"JSON":            jsonError,
	"errors in a row": chain,
}

func dump(r *http.Request) string {
	b, err := httputil.DumpRequestOut(r, false)
	return fmt.Sprint(string(b), err)
}

// secretsOf are the credentials in the headers of a request.
func secretsOf(r *http.Request) (out []string) {
	for _, values := range sdktest.CredentialsOf(r.Header) {
		out = append(out, strings.TrimPrefix(values[0], "Bearer "))
	}
	return out
}

func urlError(r *http.Request) error {
	u := *r.URL
	for _, s := range secretsOf(r) {
		u.User, u.RawQuery = url.UserPassword("agent", s), url.Values{"key": {s}}.Encode()
	}
	return &url.Error{Op: r.Method, URL: u.String(), Err: errors.New("no route to " + u.String())}
}

func encoded(r *http.Request) string {
	var b strings.Builder
	for _, s := range secretsOf(r) {
		fmt.Fprintf(&b, "%s %s %s %X ", hex.EncodeToString([]byte(s)), base64.StdEncoding.EncodeToString([]byte("agent:"+s)),
			base64.RawURLEncoding.EncodeToString([]byte(s)), "key "+s)
	}
	return b.String()
}

func curl(r *http.Request) string {
	var b strings.Builder
	for name, values := range r.Header {
		fmt.Fprintf(&b, " -H '%s: %s'", name, values[0])
	}
	return "curl -X " + r.Method + b.String() + " " + r.URL.String()
}

func jsonError(r *http.Request) error {
	b, err := json.Marshal(r.Header)
	return errors.Join(err, errors.New(string(b)))
}

// sendError shows nothing in its text, and the header to fmt.
type sendError struct {
	Header http.Header
	Err    error
}

func (e sendError) Error() string { return "not sent" }
func (e sendError) Unwrap() error { return e.Err }

func chain(r *http.Request) error {
	inner := &net.OpError{Op: "write", Net: "tcp", Err: fmt.Errorf("%v", r.Header)}
	return fmt.Errorf("attempt 1: %w", errors.Join(io.ErrUnexpectedEOF, sendError{r.Header, inner}))
}

// quotingBase fails, or panics, with a quotation of each request of a route.
type quotingBase struct {
	base   http.RoundTripper
	route  func(*http.Request) bool
	quote  func(*http.Request) error
	panics bool

	mu     sync.Mutex
	quoted []string // credentials
}

func (b *quotingBase) RoundTrip(r *http.Request) (*http.Response, error) {
	if !b.route(r) {
		return b.base.RoundTrip(r)
	}
	sdktest.ReadBody(r)
	b.mu.Lock()
	b.quoted = append(b.quoted, secretsOf(r)...)
	b.mu.Unlock()
	if b.panics {
		panic(b.quote(r))
	}
	return nil, b.quote(r)
}

func (b *quotingBase) secrets() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.quoted...)
}

// outlets hear what a client says.
type outlets map[string]*strings.Builder

func newOutlets() outlets {
	o := outlets{}
	for _, name := range []string{"error", "log", "event", "Status", "panic", "Trace"} {
		o[name] = new(strings.Builder)
	}
	return o
}

// hear writes a value as programs print it, and the errors that it wraps.
func (o outlets) hear(name string, value any) {
	_, _ = fmt.Fprintf(o[name], "%v\n%+v\n%#v\n%q\n%x\n", value, value, value, value, value)
	b, _ := json.Marshal(value)
	_, _ = o[name].Write(b)
	switch e := value.(type) {
	case interface{ Unwrap() error }:
		if e := e.Unwrap(); e != nil {
			o.hear(name, e)
		}
	case interface{ Unwrap() []error }:
		for _, e := range e.Unwrap() {
			o.hear(name, e)
		}
	}
	if e, ok := value.(interface{ Unwrap() error }); ok {
		if found, ok := errors.AsType[*url.Error](e.Unwrap()); ok {
			_, _ = fmt.Fprintf(o[name], "%+v %s", *found, found.URL)
		}
	}
}

// call makes one call, which may panic.
func (o outlets) call(f func() error) {
	defer func() {
		if value := recover(); value != nil {
			o.hear("panic", value)
		}
	}()
	if err := f(); err != nil {
		o.hear("error", err)
	}
}

// everyQuote runs a test for each way to quote a request, and with a base that panics.
func everyQuote(t *testing.T, test func(t *testing.T, quote func(*http.Request) error, panics bool)) {
	t.Helper()
	for name, quote := range quotes {
		for _, panics := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", panics ", panics), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { test(t, quote, panics) })
			})
		}
	}
}

// check fails if an outlet shows a credential that was quoted. The others must have been used.
func (o outlets) check(t *testing.T, secrets []string, used ...string) {
	t.Helper()
	require.NotEmpty(t, secrets)
	for name, said := range o {
		sdktest.AssertNoSecret(t, said.String(), secrets...)
		for _, s := range secrets {
			assert.NotContains(t, said.String(), s, name)
		}
	}
	for _, name := range used {
		assert.NotEmpty(t, o[name].String(), name)
	}
}

func (o outlets) options() []agrenting.Option {
	log := slog.New(slog.NewTextHandler(o["log"], &slog.HandlerOptions{Level: slog.LevelDebug}))
	return []agrenting.Option{
		agrenting.WithLogger(log), agrenting.WithObserver(func(e agrenting.Event) {
			o.hear("event", e)
			if e.Err != nil {
				o.hear("event", e.Err)
			}
		}),
	}
}

// hearAll adds what a client says when it is asked.
func (o outlets) hearAll(c *agrenting.Client) {
	s := c.Status()
	o.hear("Status", s)
	for _, err := range []error{s.LastError, s.StoreError} {
		if err != nil {
			o.hear("Status", err)
		}
	}
	o.hear("Status", c)
}

func all(*http.Request) bool { return true }

func TestQuotingBase_request_showsNoCredential(t *testing.T) {
	t.Parallel()
	for _, cred := range []agrenting.Credential{
		agrenting.APIKey(sdktest.TestKey), agrenting.SessionToken(sdktest.TestKey, time.Time{}), agrenting.UserToken("ap_" + sdktest.TestKey),
	} {
		t.Run(cred.Kind().String(), func(t *testing.T) {
			t.Parallel()
			everyQuote(t, func(t *testing.T, quote func(*http.Request) error, panics bool) {
				t.Helper()
				o, base := newOutlets(), &quotingBase{route: all, quote: quote, panics: panics}
				c := sdktest.ClientOver(t, base, agrenting.Static(cred), append(o.options(), agrenting.WithAgentID("agent-1"))...)
				var tr agrenting.Trace
				ctx := agrenting.ContextWithTrace(t.Context(), &tr)
				o.call(func() error {
					_, err := c.Do(ctx, http.MethodGet, "/x", nil, nil)
					return err
				})
				o.hear("Trace", tr)
				if tr.Err != nil {
					o.hear("Trace", tr.Err)
				}
				for _, rt := range []http.RoundTripper{c.Transport(), c.SocketHTTPClient().Transport} {
					o.call(func() error { return sdktest.Failure(rt, sdktest.Request(t, http.MethodGet, "/x", nil)) })
				}
				own := sdktest.Request(t, http.MethodGet, "/x", nil)
				own.Header.Set("Authorization", "Bearer "+sdktest.TestKey)
				o.call(func() error { return sdktest.Failure(c.Transport(), own) })
				o.call(func() error { return c.Verify(t.Context()) })
				o.hearAll(c)
				require.NoError(t, c.Close())
				outlet := map[bool]string{true: "panic", false: "error"}[panics]
				o.check(t, base.secrets(), outlet, "log", "Status", "Trace")
			})
		})
	}
}

func TestQuotingBase_exchange_showsNoCredential(t *testing.T) {
	t.Parallel()
	for _, key := range []agrenting.Credential{agrenting.APIKey(sdktest.TestKey), agrenting.APIKey("ap_" + sdktest.TestKey)} {
		t.Run(key.Fingerprint(), func(t *testing.T) {
			t.Parallel()
			everyQuote(t, func(t *testing.T, quote func(*http.Request) error, panics bool) {
				t.Helper()
				o, base := newOutlets(), &quotingBase{route: all, quote: quote, panics: panics}
				c := sdktest.ClientOver(t, base, agrenting.Static(key), append(o.options(), agrenting.WithSession())...)
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				o.call(func() error {
					_, err := c.Do(ctx, http.MethodGet, "/x", nil, nil)
					return err
				})
				o.hearAll(c)
				o.call(func() error {
					_, err := c.Sessions.Authenticate(t.Context())
					return err
				})
				require.NoError(t, c.Close())
				o.check(t, base.secrets(), "error", "log", "event", "Status")
			})
		})
	}
}

func TestQuotingBase_rotation_showsNoCredential(t *testing.T) {
	t.Parallel()
	routes := map[string]func(*http.Request) bool{
		"issue": func(r *http.Request) bool {
			return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/credentials")
		},
		"rotate":  func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/rotate-key") },
		"revoke":  func(r *http.Request) bool { return r.Method == http.MethodDelete },
		"verify":  sdktest.IsVerify,
		"session": func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/authenticate") },
	}
	for name, route := range routes {
		for i, by := range []string{"key", "user token"} {
			if sample.Fewer && i == len(name)%2 {
				continue // with the race detector, each route is tested with one of the two
			}
			t.Run(name+" by "+by, func(t *testing.T) {
				t.Parallel()
				everyQuote(t, func(t *testing.T, quote func(*http.Request) error, panics bool) {
					t.Helper()
					w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionsEndingWithKey())
					o, base := newOutlets(), &quotingBase{base: w.Server.Transport(), route: route, quote: quote, panics: panics}
					p := agrenting.RotationPolicy{Strategy: agrenting.Overlap, KeyID: w.Key.ID}
					if name == "rotate" || name == "session" {
						p.Strategy = agrenting.InPlace
					}
					if by == "user token" {
						p.Owner = agrenting.Static(agrenting.UserToken(w.Owner.Secret))
					}
					c := w.Client(agrenting.MemoryStore(), p, append(o.options(), agrenting.WithTransport(base))...)
					require.NoError(t, w.Call(c))
					o.call(func() error {
						_, err := c.Rotate(t.Context())
						return err
					})
					o.hearAll(c)
					o.call(c.Close)
					if secrets := base.secrets(); len(secrets) > 0 { // an owner needs no session
						o.check(t, secrets, "log", "event", "Status")
					}
				})
			})
		}
	}
}
