package shield_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/shield"
)

// hear returns hooks that note what they are told.
func hear(told *[]string) *httptrace.ClientTrace {
	note := func(values ...any) { *told = append(*told, fmt.Sprintf("%v %+v %q", values, values, values)) }
	return &httptrace.ClientTrace{
		GetConn:              func(hostPort string) { note(hostPort) },
		GotConn:              func(httptrace.GotConnInfo) { note("GotConn") },
		PutIdleConn:          func(err error) { note(err) },
		GotFirstResponseByte: func() { note("GotFirstResponseByte") },
		Got100Continue:       func() { note("Got100Continue") },
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			note(code, header)
			return errors.New("as the hook wants")
		},
		DNSStart: func(info httptrace.DNSStartInfo) { note(info) }, DNSDone: func(info httptrace.DNSDoneInfo) { note(info) },
		ConnectStart: func(network, addr string) { note(network, addr) }, ConnectDone: func(network, addr string, err error) { note(network, addr, err) },
		TLSHandshakeStart: func() { note("TLSHandshakeStart") }, TLSHandshakeDone: func(_ tls.ConnectionState, err error) { note(err) },
		WroteHeaderField: func(name string, values []string) { note(name, values) }, WroteHeaders: func() { note("WroteHeaders") },
		Wait100Continue: func() { note("Wait100Continue") }, WroteRequest: func(info httptrace.WroteRequestInfo) { note(info) },
	}
}

// callAll calls all hooks with secrets wherever they may be.
func callAll(t *testing.T, trace *httptrace.ClientTrace) {
	t.Helper()
	err := errors.New("write " + ours + " " + theirs)
	trace.GetConn("a.test:443")
	trace.GotConn(httptrace.GotConnInfo{})
	trace.PutIdleConn(err)
	trace.GotFirstResponseByte()
	trace.Got100Continue()
	header := textproto.MIMEHeader{"Link": {"</style.css>"}, "X-Echo": {ours}, "X-" + ours: {"name"}}
	require.EqualError(t, trace.Got1xxResponse(http.StatusEarlyHints, header), "as the hook wants")
	assert.Equal(t, textproto.MIMEHeader{"Link": {"</style.css>"}, "X-Echo": {ours}, "X-" + ours: {"name"}}, header, "net/http has the original")
	trace.DNSStart(httptrace.DNSStartInfo{Host: "a.test"})
	trace.DNSDone(httptrace.DNSDoneInfo{Err: err})
	trace.ConnectStart("tcp", "127.0.0.1:443")
	trace.ConnectDone("tcp", "127.0.0.1:443", err)
	trace.TLSHandshakeStart()
	trace.TLSHandshakeDone(tls.ConnectionState{}, err)
	for _, name := range []string{"X-Api-Key", "x-api-key", "X_API_KEY", "Authorization", "authorization", "Api-Key", "Cookie", "Proxy-Authorization"} {
		values := []string{"Bearer abc", "def"}
		trace.WroteHeaderField(name, values)
		assert.Equal(t, []string{"Bearer abc", "def"}, values, "net/http has the originals")
	}
	trace.WroteHeaderField(":path", []string{"/socket?api_key=" + ours})
	trace.WroteHeaderField("X-Copy", []string{theirs, "visible"})
	trace.WroteHeaders()
	trace.Wait100Continue()
	trace.WroteRequest(httptrace.WroteRequestInfo{Err: err})
}

func TestHooks_seeNoCredential(t *testing.T) {
	t.Parallel()
	var told []string
	ctx := httptrace.WithClientTrace(t.Context(), hear(&told))
	ctx = httptrace.WithClientTrace(ctx, hear(&told)) // in addition
	req := newRequest(t, "https://a.test/", "Authorization", "Bearer "+theirs).WithContext(ctx)
	base := tripFunc(func(out *http.Request) (*http.Response, error) {
		assert.Equal(t, req.Header, out.Header)
		callAll(t, httptrace.ContextClientTrace(out.Context()))
		return nil, http.ErrUseLastResponse
	})
	_, err := shield.Send(base, req, credential) //nolint:bodyclose // there is no response
	require.Equal(t, http.ErrUseLastResponse, err)
	all := fmt.Sprint(told)
	for _, s := range []string{ours, theirs, "abc", "def"} {
		assert.NotContains(t, all, s)
	}
	for _, s := range []string{"/socket?api_key=[redacted]", "visible", "</style.css>", "127.0.0.1:443", "write [redacted] [redacted]", "X_API_KEY"} {
		assert.Contains(t, all, s)
	}
	const headers = 10
	assert.Len(t, told, 2*(15+headers))
}

// A hook that a new version of Go adds must be checked for credentials, and put into hear.
func TestHooks_areAllKnown(t *testing.T) {
	t.Parallel()
	var told []string
	v := reflect.ValueOf(hear(&told)).Elem()
	for i := range v.NumField() {
		assert.False(t, v.Field(i).IsNil(), v.Type().Field(i).Name)
	}
}

type (
	otherKey struct{}
	nameKey  struct{}
)

func TestHooks_otherValues_areUnchanged(t *testing.T) {
	t.Parallel()
	var told []string
	trace := hear(&told)
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{})
	ctx = context.WithValue(ctx, otherKey{}, trace)
	ctx = context.WithValue(ctx, nameKey{}, "value")
	base := tripFunc(func(out *http.Request) (*http.Response, error) {
		ctx := out.Context()
		assert.Equal(t, "value", ctx.Value(nameKey{}))
		assert.Nil(t, ctx.Value("other"))
		kept, ok := ctx.Value(otherKey{}).(*httptrace.ClientTrace)
		require.True(t, ok)
		kept.WroteHeaderField("X-Copy", []string{ours})
		trace := httptrace.ContextClientTrace(ctx)
		assert.Nil(t, trace.WroteHeaderField, "there is none")
		assert.Same(t, trace, httptrace.ContextClientTrace(ctx))
		assert.Equal(t, ctx.Done(), t.Context().Done())
		return nil, http.ErrUseLastResponse
	})
	req := newRequest(t, "https://a.test/").WithContext(ctx)
	_, err := shield.Send(base, req, credential) //nolint:bodyclose // there is no response
	require.Equal(t, http.ErrUseLastResponse, err)
	assert.NotContains(t, fmt.Sprint(told), ours)
}
