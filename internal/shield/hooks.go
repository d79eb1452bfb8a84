package shield

import (
	"context"
	"crypto/tls"
	"maps"
	"net/http/httptrace"
	"net/textproto"
	"slices"

	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// hookContext is a context with hooks that do not see credentials. A hook cannot be removed from
// a context ([httptrace.WithClientTrace] adds to the existing ones), and net/http finds hooks
// under a private key, so hookContext recognizes them by their type.
type hookContext struct {
	context.Context //nolint:containedctx // it is one

	trace, clean *httptrace.ClientTrace
	redact       func(string) string
}

func withHooks(ctx context.Context, trace *httptrace.ClientTrace, redact func(string) string) context.Context {
	return &hookContext{Context: ctx, trace: trace, clean: cleanHooks(trace, redact), redact: redact}
}

// Value implements [context.Context].
func (c *hookContext) Value(key any) any {
	value := c.Context.Value(key)
	trace, ok := value.(*httptrace.ClientTrace)
	switch {
	case !ok || trace == nil:
		return value
	case trace == c.trace:
		return c.clean
	default:
		return cleanHooks(trace, c.redact)
	}
}

// cleanHooks returns hooks that are called without credentials. Hooks that get neither headers
// nor errors are unchanged.
func cleanHooks(trace *httptrace.ClientTrace, redact func(string) string) *httptrace.ClientTrace {
	out := *trace
	clean := func(err error) error { return secret.CleanError(err, redact) }
	if hook := trace.WroteHeaderField; hook != nil {
		out.WroteHeaderField = func(name string, values []string) {
			hook(redact(name), cleanValues(name, values, redact))
		}
	}
	if hook := trace.Got1xxResponse; hook != nil {
		out.Got1xxResponse = func(code int, header textproto.MIMEHeader) error {
			return hook(code, cleanHeader(header, redact))
		}
	}
	if hook := trace.WroteRequest; hook != nil {
		out.WroteRequest = func(info httptrace.WroteRequestInfo) {
			info.Err = clean(info.Err)
			hook(info)
		}
	}
	if hook := trace.PutIdleConn; hook != nil {
		out.PutIdleConn = func(err error) { hook(clean(err)) }
	}
	if hook := trace.ConnectDone; hook != nil {
		out.ConnectDone = func(network, addr string, err error) { hook(network, addr, clean(err)) }
	}
	if hook := trace.DNSDone; hook != nil {
		out.DNSDone = func(info httptrace.DNSDoneInfo) {
			info.Err = clean(info.Err)
			hook(info)
		}
	}
	if hook := trace.TLSHandshakeDone; hook != nil {
		out.TLSHandshakeDone = func(state tls.ConnectionState, err error) { hook(state, clean(err)) }
	}
	return &out
}

// cleanValues returns the values of a request header without credentials.
func cleanValues(name string, values []string, redact func(string) string) []string {
	clean := redact
	if origin.Secret(name) {
		clean = func(string) string { return secret.Placeholder }
	}
	out := slices.Clone(values)
	for i, value := range out {
		out[i] = clean(value)
	}
	return out
}

// cleanHeader returns the headers of a response without credentials that it echoes.
func cleanHeader(header textproto.MIMEHeader, redact func(string) string) textproto.MIMEHeader {
	out := maps.Clone(header)
	for name, values := range header {
		delete(out, name)
		out[redact(name)] = cleanValues(name, values, redact)
	}
	return out
}
