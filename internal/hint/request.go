package hint

import (
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"github.com/agrenting/agrenting-go/internal/ascii"
	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// Why says why req gets no credential of the SDK. own is set if the reason is a credential of
// the caller. Otherwise, the reason is that set does not contain the origin of req, or of a
// redirect before it.
func Why(set origin.Set, req *http.Request, own bool) Missing {
	name := origin.CredentialHeader(req.Header)
	switch {
	case own && name != "":
		return Own("the header " + name)
	case own:
		return Own("the query")
	case set.Has(req.URL):
		return Left()
	case name != "":
		return Foreign(set.Why(req.URL) + ", and the request has the caller's own credential, in the header " + name)
	default:
		return Foreign(set.Why(req.URL))
	}
}

// IsHandshake reports whether req is a WebSocket handshake.
func IsHandshake(req *http.Request) bool {
	return ascii.EqualFold(req.Header.Get("Upgrade"), "websocket")
}

// Fill adds what the response and its request say. The request may be nil.
func (r *Response) Fill(resp *http.Response) {
	r.Status, r.ContentType = resp.StatusCode, resp.Header.Get("Content-Type")
	if req := resp.Request; req != nil && req.URL != nil {
		r.Host, r.Path = req.URL.Host, req.URL.EscapedPath()
	}
}

// maxOnce bounds the memory of a Once, because paths contain IDs, and redirects name hosts.
const maxOnce = 256

// Once remembers what has been logged. The zero value is ready for use. It is safe for
// concurrent use.
type Once struct {
	mu   sync.Mutex
	seen map[string]struct{}
}

// First reports whether key was not logged before, and records it. A key is never forgotten.
// When the memory is full, First returns false for all further keys.
func (o *Once) First(key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.seen[key]; known || len(o.seen) >= maxOnce {
		return false
	}
	if o.seen == nil {
		o.seen = map[string]struct{}{}
	}
	o.seen[key] = struct{}{}
	return true
}

// LogMissing logs why req gets no credential of the SDK, once for each host and reason.
func (o *Once) LogMissing(log *slog.Logger, set origin.Set, req *http.Request, own bool) {
	if !o.First(fmt.Sprint(own, req.URL.Host)) {
		return
	}
	why := Why(set, req, own)
	log.LogAttrs(req.Context(), slog.LevelWarn, "agrenting: no credential added to the request",
		slog.String("host", secret.Clean(req.URL.Host)), slog.String("reason", why.Why), slog.String("hint", why.Option))
}

// LogHandshake logs, once for each host, that a WebSocket handshake was refused because its
// credential was in a header. Libraries show only the status. LogHandshake ignores all other
// responses, so any resp may be passed.
func (o *Once) LogHandshake(log *slog.Logger, req *http.Request, resp *http.Response) {
	r := Response{Handshake: IsHandshake(req), Credential: &Credential{}}
	r.Fill(resp)
	if text := r.handshake(); text != "" && o.First("socket"+req.URL.Host) {
		log.LogAttrs(req.Context(), slog.LevelWarn, "agrenting: WebSocket handshake refused",
			slog.String("host", secret.Clean(req.URL.Host)), slog.Int("status", resp.StatusCode), slog.String("hint", text))
	}
}
