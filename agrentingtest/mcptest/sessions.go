package mcptest

import (
	"mime"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// SessionTimeout is how long an MCP session of Streamable HTTP may go without a message:
// two hours. Then it ends, and requests with its ID get a 404, after which clients begin
// a new one. The platform does not publish a number.
const SessionTimeout = 2 * time.Hour

// sessionHeader is the header with the MCP session of a message.
const sessionHeader = "Mcp-Session-Id"

// hidden sends the same response for an MCP session of another caller as for one that
// does not exist. The MCP library sends different ones, in plain text.
func hidden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(sessionHeader) != "" {
			w = &sessionWriter{ResponseWriter: w}
		}
		next.ServeHTTP(w, r)
	})
}

// sessionWriter replaces the library's responses that refuse an MCP session.
type sessionWriter struct {
	http.ResponseWriter
	replaced bool
}

// WriteHeader implements http.ResponseWriter.
func (w *sessionWriter) WriteHeader(status int) {
	kind, _, _ := mime.ParseMediaType(w.Header().Get("Content-Type"))
	refused := status == http.StatusNotFound || status == http.StatusForbidden
	if w.replaced = refused && kind == "text/plain"; w.replaced {
		refuse(w.ResponseWriter, &refusal{http.StatusNotFound, agrentingtest.CodeNotFound, "MCP session not found"})
		return
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *sessionWriter) Write(p []byte) (int, error) {
	if w.replaced {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *sessionWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
