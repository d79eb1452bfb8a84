package agrentingtest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/agrenting/agrenting-go/internal/ascii"
)

// WithControl serves the control routes. Programs in any language can use them for what
// tests in Go do with methods:
//
//	POST   /_sandbox/faults  scripts faults, as [Server.Fault] does
//	GET    /_sandbox/faults  lists the pending faults
//	DELETE /_sandbox/faults  removes them, as [Server.ClearFaults] does
//	GET    /_sandbox/report  returns [Server.Report]
//	POST   /_sandbox/revoke  revokes a key, token, or session
//	POST   /_sandbox/rotate  replaces the keys of an agent
//
// GET /_sandbox lists the routes. They need no credential. They accept only requests from
// this machine that are sent to a loopback host name, and no requests from web pages in a
// browser. They are not logged, counted, or rate-limited, and faults do not apply to
// them. docs/testing.md describes the request bodies.
func WithControl() Option { return func(c *config) { c.control = true } }

const controlPrefix = "/_sandbox"

func isControl(path string) bool {
	return path == controlPrefix || strings.HasPrefix(path, controlPrefix+"/")
}

// controlHandler serves a control route. It returns a status and the value to encode, or
// an error about the body.
type controlHandler func(body []byte) (int, any, *fieldError)

func (s *Server) controlRoutes() map[string]map[string]controlHandler {
	return map[string]map[string]controlHandler{
		controlPrefix: {http.MethodGet: s.listControlRoutes},
		controlPrefix + "/faults": {
			http.MethodPost: s.orderFaults, http.MethodGet: s.listFaults, http.MethodDelete: s.clearFaults,
		},
		controlPrefix + "/report": {http.MethodGet: func([]byte) (int, any, *fieldError) { return http.StatusOK, s.Report(), nil }},
		controlPrefix + "/revoke": {http.MethodPost: s.orderRevocation},
		controlPrefix + "/rotate": {http.MethodPost: s.orderRotation},
	}
}

// listControlRoutes serves GET /_sandbox.
func (s *Server) listControlRoutes([]byte) (int, any, *fieldError) {
	var routes []string
	for path, methods := range s.controlRoutes() {
		for method := range methods {
			routes = append(routes, method+" "+path)
		}
	}
	slices.Sort(routes)
	return http.StatusOK, map[string]any{"routes": routes}, nil
}

// maxControlBody bounds the body of a control request.
const maxControlBody = 1 << 20

func (s *Server) serveControl(w http.ResponseWriter, r *http.Request) {
	if reason := foreign(r); reason != "" {
		respondControl(w, http.StatusForbidden, &fieldError{Message: reason})
		return
	}
	routes := s.controlRoutes()
	methods := routes[r.URL.Path]
	if methods == nil {
		paths := slices.Sorted(maps.Keys(routes))
		respondControl(w, http.StatusNotFound, complain("", paths, "unknown control route (want %s)", strings.Join(paths, ", ")))
		return
	}
	h := methods[r.Method]
	if h == nil {
		names := slices.Sorted(maps.Keys(methods))
		w.Header().Set("Allow", strings.Join(names, ", "))
		respondControl(w, http.StatusMethodNotAllowed, complain("", names, "the control route takes %s", strings.Join(names, ", ")))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxControlBody))
	if err != nil {
		respondControl(w, http.StatusRequestEntityTooLarge, complain("", nil, "the body could not be read, or has more than %d bytes", maxControlBody))
		return
	}
	status, v, wrong := h(body)
	if wrong != nil {
		respondControl(w, http.StatusUnprocessableEntity, wrong)
		return
	}
	respondControl(w, status, v)
}

// respondControl sends v. If v is an error, it sends {"error": v}.
func respondControl(w http.ResponseWriter, status int, v any) {
	if wrong, ok := v.(*fieldError); ok {
		v = map[string]any{"error": wrong}
	}
	h := w.Header()
	h.Set("Content-Type", jsonType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	_ = e.Encode(v) //nolint:errchkjson // what is sent here encodes; if it fails, the client has gone
}

// foreign returns why a control request may not come from a program on this machine, or
// "" if it does. A web page can make a browser on this machine send requests. The browser
// then adds Origin or Sec-Fetch-Site. A page can also point its own host name at this
// address (DNS rebinding), which the Host header shows.
func foreign(r *http.Request) string {
	h := r.Header
	switch site := h.Get("Sec-Fetch-Site"); {
	case !isLoopback(r.RemoteAddr):
		return "control routes can be called from this machine only"
	case !isLoopback(r.Host):
		return fmt.Sprintf("control routes are addressed as localhost or by a loopback address such as 127.0.0.1, not as %q", r.Host)
	case h["Origin"] != nil, site != "" && site != "none":
		return "control routes cannot be called from web pages"
	case h["Forwarded"] != nil, h["Via"] != nil, h["X-Forwarded-For"] != nil:
		return "control routes cannot be called through a proxy"
	default:
		return ""
	}
}

// isLoopback reports whether an address, with or without a port, belongs to this machine.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	}
	if ascii.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// orderRevocation serves POST /_sandbox/revoke.
func (s *Server) orderRevocation(body []byte) (int, any, *fieldError) {
	members, wrong := readObject(body)
	if wrong != nil {
		return 0, nil, wrong
	}
	choices := []string{"agent", "credential", "key_id", "sessions", "token_id"}
	r := objectReader{members: members}
	r.checkNames(slices.Clone(choices), nil, " of this route")
	if r.wrong == nil && len(members) != 1 {
		r.wrong = complain("", choices, "the body must have one field (want %s)", strings.Join(choices, ", "))
	}
	var value string
	for _, name := range choices {
		want := "the ID of an agent, key, or token; for credential, its secret; for sessions, \"all\" or the ID of an agent"
		r.read(name, want, &value, func() bool { return value != "" })
	}
	if r.wrong != nil {
		return 0, nil, r.wrong
	}
	name := slices.Collect(maps.Keys(members))[0]
	keys, tokens, sessions := s.revokeBy(name, value)
	if keys+tokens+sessions == 0 && (name != "sessions" || value != "all") { // "all" matches even without a session
		return 0, nil, complain(name, nil, "no live credential of this server matches %s", name)
	}
	return http.StatusOK, map[string]int{"keys": keys, "tokens": tokens, "sessions": sessions}, nil
}

// revokeBy revokes the credential that a field of the body names, and counts what it
// revoked.
func (s *Server) revokeBy(field, value string) (keys, tokens, sessions int) {
	d := s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	now, id := s.now(), strings.ToLower(value)
	revoke := func(k *key) {
		if k != nil && s.revokeKey(k) {
			keys++
		}
	}
	end := func(which func(*session) bool) {
		for _, e := range d.sessions {
			if e.ended.IsZero() && now.Before(e.expires) && which(e) {
				s.endSession(e)
				sessions++
			}
		}
	}
	a, token := d.find(value), d.tokens[id]
	switch field {
	case "agent":
		if a != nil {
			for _, k := range a.keys {
				revoke(k)
			}
		}
	case "credential":
		secret := sum(value)
		revoke(d.keyBySum[secret])
		end(func(e *session) bool { return e.sum == secret })
		token = d.tokenBySum[secret]
	case "key_id":
		revoke(d.keys[id])
	case "sessions":
		end(func(e *session) bool { return value == "all" || e.key.agent == a })
	}
	if (field == "credential" || field == "token_id") && token != nil && s.revokeToken(token) {
		tokens++
	}
	return keys, tokens, sessions
}

// orderRotation serves POST /_sandbox/rotate. It does not count the rotation in Stats,
// because no client made it.
func (s *Server) orderRotation(body []byte) (int, any, *fieldError) {
	members, wrong := readObject(body)
	if wrong != nil {
		return 0, nil, wrong
	}
	r := objectReader{members: members}
	var id string
	r.checkNames([]string{"agent"}, []string{"agent"}, " of this route")
	r.read("agent", "the ID or DID of an agent", &id, func() bool { return true })
	if r.wrong != nil {
		return 0, nil, r.wrong
	}
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	a := s.dir.find(id)
	if a == nil {
		return 0, nil, complain("agent", nil, "this server has no such agent")
	}
	revoked := []string{}
	for _, k := range a.keys {
		if s.revokeKey(k) {
			revoked = append(revoked, k.id)
		}
	}
	k, secret := s.dir.addKey(a, "", s.now(), s.nodes.cfg.KeyLag)
	return http.StatusCreated, map[string]any{"agent_id": a.id, "key_id": k.id, "key": secret, "revoked": revoked}, nil
}
