package agrentingtest

import (
	"context"
	"errors"
	"net/http"
)

// RefusedError is the reason for which [Server.Verify] refuses a request, or
// [Server.TakeStep] refuses a step, in the form of a platform response.
type RefusedError struct {
	Status  int    // such as 401
	Code    string // such as [CodeUnauthorized]
	Message string // never contains a credential

	failure *failure
}

// Error implements error.
func (e *RefusedError) Error() string { return e.Code + ": " + e.Message }

// Verify returns the principal of a request with these headers. Valid credentials are a
// live API key, a session that has neither expired nor been revoked, and a live user
// token. A user acts as the agent in X-Agent-ID, or as its only agent. The error is a
// [*RefusedError]. Verify is not logged or counted, and no rate limit applies.
//
// Use Verify for servers without an http.Handler, such as the verifier of another
// library's middleware or a gRPC interceptor. For handlers, use [Server.Guard]. To
// verify a token without its header, put it into the header that it belongs to.
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

// canonical returns h with canonical header names, as a server of net/http has them.
// Headers from elsewhere, such as gRPC metadata, are in lower case.
func canonical(h http.Header) http.Header {
	out := make(http.Header, len(h))
	for name, values := range h {
		name = http.CanonicalHeaderKey(name)
		out[name] = append(out[name], values...)
	}
	return out
}

// Guard puts the platform's authentication in front of a handler of any server, to test
// clients of services that trust the platform's credentials. next gets the caller from
// [PrincipalFrom]. A request that [Server.Verify] refuses gets the platform's error
// response before its body is read or the connection is upgraded. Guard accepts any
// valid credential, and the handler checks the scopes; see [Principal.Allows].
//
// Guard verifies each request once, when it arrives. An accepted stream or WebSocket
// therefore continues after its credential was revoked.
//
// Unlike the routes of [Server.Handle], guarded requests are not logged, rate-limited,
// or counted, and no faults apply to them, because the other server is not the platform.
// Many servers may use Guard at the same time. It continues to work after
// [Server.Close].
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
	// The client may have left.
	_, _ = w.Write(encodeFailure(f, meta{Version: "1.0", Timestamp: timestamp(s.now()), RequestID: "req_" + randomHex(8)}))
}
