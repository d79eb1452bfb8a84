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

// Paths of the server. The exchange has two forms: the platform's, for whoever
// speaks it, and a plain one behind [peer.Config.Exchange] for all others. They
// are one endpoint: same delay, same outages, same sessions.
const (
	pathAuthenticate = "/api/v1/auth/authenticate"
	pathToken        = "/token"
	pathResource     = "/api/v1/agents/mine"
	pathVerify       = "/api/v1/hirings/pending"
	pathWarm         = "/warm" // opens connections
)

// settings of a server; a change counts from the next request on.
type settings struct {
	life     time.Duration // of a session
	exchange time.Duration // how long an exchange takes
	resource time.Duration // how long an answer of the resource takes
	down     bool          // exchanges answer 503
}

// server hands out sessions and takes them, on a loopback address that the
// kernel chooses.
type server struct {
	url  string
	http *http.Server

	mu       sync.Mutex
	set      settings
	sessions map[string]time.Time // end of life
	serial   int
	newest   session
	inFlight int
	counts   counts
}

type session struct{ issued, expires time.Time }

// counts of a server since it began, or since the last reset.
type counts struct {
	// Exchanges is how often a session was asked for, Extra how often without
	// need: while another exchange was under way, or while the newest session
	// had more than half of its life before it.
	Exchanges, Extra int
	// Refused is how many requests were answered with 401.
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
	go func() { _ = s.http.Serve(ln) }() // ends with close
	return s, nil
}

func (s *server) close() { _ = s.http.Close() }

// change adapts the settings.
func (s *server) change(f func(*settings)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.set)
}

// reset begins to count anew, and says what was counted so far.
func (s *server) reset() counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	s.counts = counts{}
	return c
}

// revoke ends all sessions at once.
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

// open makes a session.
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

// authenticate has the platform's form.
func (s *server) authenticate(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Api-Key") == "" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.answer(w, r, func(t peer.Token) string {
		return fmt.Sprintf(`{"data":{"session_token":%q,"expires_at":%q}}`, t.Value, t.Expires.UTC().Format(time.RFC3339Nano))
	})
}

// token has the plain form.
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
	_, _ = io.WriteString(w, form(t)) // the client may be gone
}

// resource demands a session that is alive when the answer is made.
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

// verify answers what a client asks about a session that was refused.
func (s *server) verify(w http.ResponseWriter, r *http.Request) {
	if !s.alive(r) {
		refuse(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"data":[]}`)
}

// alive reports whether a request has a session that has not ended.
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

// refuse answers 401 as the platform does.
func refuse(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"invalid or expired session"}]}`)
}

// exchange asks the plain endpoint through a client of its own.
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
			return t, fmt.Errorf("the token endpoint answers %d", resp.StatusCode)
		}
		err = json.NewDecoder(resp.Body).Decode(&t)
		return t, err
	}
}

// pause waits, but no longer than ctx lives.
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
