package stampede

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/bench/internal/peer"
)

// Paths of the server. The exchange has two forms: that of the platform, for
// clients that use it, and a plain one behind [peer.Config.Exchange] for all
// others. They are one endpoint with the same delay, outages, and sessions.
const (
	pathAuthenticate = "/api/v1/auth/authenticate"
	pathToken        = "/token"
	pathResource     = "/api/v1/agents/mine"
	pathVerify       = "/api/v1/hirings/pending"
	pathWarm         = "/warm" // opens connections
)

// settings of a server. A change takes effect with the next request.
type settings struct {
	life     time.Duration // lifetime of a session
	exchange time.Duration // duration of an exchange
	resource time.Duration // response time of the resource
	down     bool          // exchanges respond with 503
}

// server issues sessions and checks them. It listens on a free port of
// loopback.
type server struct {
	url  string
	http *http.Server

	mu       sync.Mutex
	set      settings
	sessions map[string]time.Time // end of each session
	serial   int
	newest   session
	inFlight int
	counts   counts
}

type session struct{ issued, expires time.Time }

// counts has the counts of a server since its start or since the last reset.
type counts struct {
	// Exchanges is the number of exchanges. Extra is the number of exchanges that
	// were not needed, because another exchange was in progress, or because the
	// newest session had more than half of its lifetime left.
	Exchanges, Extra int
	// Refused is the number of requests that got a 401.
	Refused int
}

func newServer(ctx context.Context, set settings) (*server, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{url: "http://" + ln.Addr().String(), set: set, sessions: make(map[string]time.Time)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathAuthenticate, s.authenticate)
	mux.HandleFunc("POST "+pathToken, s.token)
	mux.HandleFunc("GET "+pathResource, s.resource)
	mux.HandleFunc("GET "+pathVerify, s.verify)
	mux.HandleFunc("GET "+pathWarm, func(_ http.ResponseWriter, r *http.Request) { _ = pause(r.Context(), warmTime) })
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.http.Serve(ln) }() // runs until close
	return s, nil
}

func (s *server) close() { _ = s.http.Close() }

// change changes the settings.
func (s *server) change(f func(*settings)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.set)
}

// reset returns the counts and sets them to zero.
func (s *server) reset() counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	s.counts = counts{}
	return c
}

// revoke ends all sessions.
func (s *server) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.sessions)
	s.newest = session{}
}

var (
	errOutage = errors.New("the token endpoint is out of order")
	errGone   = errors.New("the client went away")
)

// open issues a session.
func (s *server) open(ctx context.Context) (peer.Token, error) {
	now := time.Now()
	s.mu.Lock()
	s.counts.Exchanges++
	alive := now.Before(s.newest.expires)
	if s.inFlight > 0 || (alive && s.newest.expires.Sub(now) > s.newest.expires.Sub(s.newest.issued)/2) {
		s.counts.Extra++
	}
	s.inFlight++
	delay := s.set.exchange
	s.mu.Unlock()

	err := pause(ctx, delay)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
	switch {
	case err != nil:
		return peer.Token{}, errGone
	case s.set.down:
		return peer.Token{}, errOutage
	}
	now = time.Now()
	s.serial++
	t := peer.Token{Value: "session-" + strconv.Itoa(s.serial), Expires: now.Add(s.set.life)}
	s.sessions[t.Value] = t.Expires
	s.newest = session{issued: now, expires: t.Expires}
	return t, nil
}

// authenticate is the exchange in the platform's form.
func (s *server) authenticate(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Api-Key") == "" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.answer(w, r, func(t peer.Token) string {
		return fmt.Sprintf(`{"data":{"session_token":%q,"expires_at":%q}}`, t.Value, t.Expires.UTC().Format(time.RFC3339Nano))
	})
}

// token is the exchange in the plain form.
func (s *server) token(w http.ResponseWriter, r *http.Request) {
	s.answer(w, r, func(t peer.Token) string {
		return fmt.Sprintf(`{"value":%q,"expires":%q}`, t.Value, t.Expires.Format(time.RFC3339Nano))
	})
}

func (s *server) answer(w http.ResponseWriter, r *http.Request, form func(peer.Token) string) {
	t, err := s.open(r.Context())
	if err != nil {
		http.Error(w, `{"errors":[{"code":"UNAVAILABLE","message":"try later"}]}`, http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, form(t)) // the client may have left
}

// resource requires a session that is valid when the response is made.
func (s *server) resource(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	delay := s.set.resource
	s.mu.Unlock()
	if delay > 0 && pause(r.Context(), delay) != nil {
		return
	}
	if !s.alive(r) {
		s.mu.Lock()
		s.counts.Refused++
		s.mu.Unlock()
		refuse(w)
		return
	}
	_, _ = io.WriteString(w, `{"data":[]}`)
}

// verify responds to the request with which a client checks whether a refused
// session is dead.
func (s *server) verify(w http.ResponseWriter, r *http.Request) {
	if !s.alive(r) {
		refuse(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"data":[]}`)
}

// alive reports whether a request has a valid session.
func (s *server) alive(r *http.Request) bool {
	value := r.Header.Get("X-Auth-Token")
	if value == "" {
		_, value, _ = strings.Cut(r.Header.Get("Authorization"), " ")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	end, ok := s.sessions[value]
	return ok && time.Now().Before(end)
}

// refuse responds with 401 as the platform does.
func refuse(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"invalid or expired session"}]}`)
}

// exchange returns a function that calls the plain endpoint with a separate
// client.
func (s *server) exchange(base http.RoundTripper) func(ctx context.Context) (peer.Token, error) {
	c := &http.Client{Transport: base}
	return func(ctx context.Context) (peer.Token, error) {
		var t peer.Token
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+pathToken, http.NoBody)
		if err != nil {
			return t, err
		}
		resp, err := c.Do(req)
		if err != nil {
			return t, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			_, _ = io.Copy(io.Discard, resp.Body)
			return t, fmt.Errorf("the token endpoint responded with %d", resp.StatusCode)
		}
		err = json.NewDecoder(resp.Body).Decode(&t)
		return t, err
	}
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
