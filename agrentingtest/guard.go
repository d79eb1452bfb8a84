package agrentingtest

import (
	"context"
	"errors"
	"net/http"
)

// RefusedError is why [Server.Verify] turns a request away, or [Server.TakeStep] refuses
// a step, as the platform would answer it.
type RefusedError struct {
	Status  int    // such as 401
	Code    string // such as [CodeUnauthorized]
	Message string // never contains a credential

	failure *failure
}

// Error implements error.
func (e *RefusedError) Error() string { return e.Code + ": " + e.Message }

// Verify tells who a request with these headers comes from: a live API key, a
// session that has neither ended nor been revoked, or a live user token, acting
// as the agent that X-Agent-ID names or that leaves no choice. The error is a
// [*RefusedError]. Nothing is charged, logged or counted.
//
// It is for servers that are not made of an http.Handler, such as the verifier
// of another library's middleware or an interceptor of gRPC; for handlers there
// is [Server.Guard]. To ask on behalf of a bare token, put it into the header it
// belongs in.
func (s *Server) Verify(h http.Header) (Principal, error) {
	who, f := s.identify(canonical(h), s.nodes.choose())
	if f == nil && who == nil {
		f = unauthorized("a credential is required")
	}
	if f == nil {
		f = s.resolveAgent(who, canonical(h), agentIfClear)
	}
	if f != nil {
		return Principal{}, refused(f)
	}
	return who.principal(), nil
}

func refused(f *failure) *RefusedError {
	return &RefusedError{Status: f.status, Code: f.err.Code, Message: f.err.Message, failure: f}
}

// canonical is h with the names as a server of net/http gives them; headers
// that come from elsewhere, such as the metadata of gRPC, are in lower case.
func canonical(h http.Header) http.Header {
	out := make(http.Header, len(h))
	for name, values := range h {
		name = http.CanonicalHeaderKey(name)
		out[name] = append(out[name], values...)
	}
	return out
}

// Guard puts the platform's authentication before a handler of any server, to
// test clients of services that trust the platform's credentials: next learns
// from [PrincipalFrom] who is calling, and what [Server.Verify] refuses is
// answered as the platform does, before the body is read or the connection
// upgraded. Any valid credential is let in; scopes are the handler's business,
// see [Principal.Allows].
//
// Each request is verified when it arrives, and not later: what was let in, such
// as a stream or a WebSocket, lives on when its credential dies.
//
// Unlike the routes of [Server.Handle], requests are not logged, limited,
// counted or befallen by faults: the other server is not the platform. Guard may
// be used by many servers at once, and continues to work after [Server.Close].
func (s *Server) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := s.Verify(r.Header)
		if err != nil {
			s.turnAway(w, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), principalKey{}, p)))
	})
}

func (s *Server) turnAway(w http.ResponseWriter, err error) {
	f := fail(http.StatusInternalServerError, CodeInternal, "internal error")
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		f = refused.failure
	}
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(f.status)
	// The client may have gone.
	_, _ = w.Write(encodeFailure(f, meta{Version: "1.0", Timestamp: timestamp(s.now()), RequestID: "req_" + randomHex(8)}))
}
