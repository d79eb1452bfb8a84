package mcptest

import (
	"mime"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// SessionTimeout is how long an MCP session of Streamable HTTP may receive no message: two
// hours. Then it ends, and its ID gets a 404, after which clients begin another one. The
// platform publishes no number.
const SessionTimeout = 2 * time.Hour

// sessionHeader names the MCP session of a message.
const sessionHeader = "Mcp-Session-Id"

// hidden responds in the same way for an MCP session of another caller as for one that
// does not exist. The MCP library tells the two apart, in plain text.
func hidden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(sessionHeader) != "" {
			w = &sessionWriter{ResponseWriter: w}
		}
		next.ServeHTTP(w, r)
	})
}

// sessionWriter replaces the library's refusals of an MCP session.
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
