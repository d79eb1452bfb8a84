package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/chaos"
)

// errStoreDown is what the soak's store fails with.
var errStoreDown = errors.New("the disk is full")

// journey is what the witness saw of one call of a worker.
type journey struct {
	mu       sync.Mutex
	began    time.Time
	attempts int
	status   int    // of the last attempt, 0 for none
	addr     string // of the last attempt's connection
}

type journeyKey struct{}

// witness is the base transport of the soak's clients. It remembers how the
// attempts of a call ended, how the exchanges did, and every secret that passed.
type witness struct {
	base    http.RoundTripper
	proxy   *chaos.Proxy
	secrets *secretSet

	mu        sync.Mutex
	exchanges []exchangeEnd
	latest    string    // session used
	byHand    time.Time // when a key was last revoked manually
}

// exchangeEnd is how a call of the authenticate endpoint ended.
type exchangeEnd struct {
	at       time.Time
	ok       bool
	unharmed bool // it failed, and no fault was to blame
}

func (w *witness) RoundTrip(req *http.Request) (*http.Response, error) {
	bearer := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	w.secrets.add(req.Header.Get("X-Api-Key"), bearer)
	if bearer != "" && !strings.HasPrefix(bearer, "ap_") {
		w.mu.Lock()
		w.latest = bearer
		w.mu.Unlock()
	}
	var addr string
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { addr = i.Conn.LocalAddr().String() },
	})
	resp, err := w.base.RoundTrip(req.WithContext(ctx))
	status := 0
	if err == nil {
		status = resp.StatusCode
	}
	if j, ok := req.Context().Value(journeyKey{}).(*journey); ok {
		j.mu.Lock()
		j.attempts, j.status, j.addr = j.attempts+1, status, addr
		j.mu.Unlock()
	}
	if strings.HasSuffix(req.URL.Path, "/auth/authenticate") {
		w.exchanged(exchangeEnd{
			at: time.Now(), ok: status == http.StatusOK,
			unharmed: status != http.StatusOK && status < http.StatusInternalServerError && w.proxy.Harm(addr) == "",
		})
	}
	return resp, err
}

func (w *witness) exchanged(e exchangeEnd) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.exchanges) > 1000 {
		w.exchanges = append([]exchangeEnd(nil), w.exchanges[500:]...)
	}
	w.exchanges = append(w.exchanges, e)
}

// session is the one used last.
func (w *witness) session() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest
}

// revoked notes that a key will now be revoked manually.
func (w *witness) revoked() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.byHand = time.Now()
}

// unreachable reports whether an exchange has been made to fail since then, or
// the last one before.
func (w *witness) unreachable(began time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range slices.Backward(w.exchanges) {
		if !e.ok && !e.unharmed {
			return true
		}
		if e.at.Before(began) {
			return false
		}
	}
	return false
}

// attemptsOfSoak is how often the soak's clients send what can be repeated.
const attemptsOfSoak = 6

// explain names the fault that a failed call is due to. It is "" when there is
// none, which is what the soak must not find. A failure is explained
//
//   - if the proxy harmed the last attempt, or a scripted 5xx answered it, and
//     the call could not be repeated (its method is not idempotent), or was as
//     often as the policy grants, or its response had begun to arrive;
//   - if no credential was available, because the exchange was itself harmed in
//     such a way and its pause is not over, because the key store failed, or
//     because an operator had just revoked the key, so that the exchange
//     refused it. While the exchange works, no call may fail for want of a
//     session.
//
// Nothing explains a 401 to the call itself.
func (w *witness) explain(err error, j *journey, repeatable bool) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	why := "sent once"
	switch {
	case !repeatable:
	case j.attempts >= attemptsOfSoak:
		why = "attempts exhausted"
	case j.status >= http.StatusOK && j.status < http.StatusMultipleChoices:
		why = "in the middle of the response"
	default:
		why = ""
	}
	if r, ok := errors.AsType[*agrenting.RenewalError](err); ok {
		return w.explainRenewal(r, j.began)
	}
	if api, ok := errors.AsType[*agrenting.APIError](err); ok {
		if api.StatusCode != http.StatusServiceUnavailable || why == "" {
			return ""
		}
		return "503, " + why
	}
	kind := w.proxy.Harm(j.addr)
	if kind == "" || why == "" {
		return ""
	}
	return fmt.Sprintf("%s, %s", kind, why)
}

func (w *witness) explainRenewal(r *agrenting.RenewalError, began time.Time) string {
	// The pauses double from a second on, and may have begun in another process.
	began = began.Add(-2 * time.Second * time.Duration(r.Failures+1))
	api, answered := errors.AsType[*agrenting.APIError](r.Err)
	w.mu.Lock()
	byHand := w.byHand.After(began)
	w.mu.Unlock()
	switch {
	case byHand && errors.Is(r.Err, agrenting.ErrUnauthorized):
		return "no credential: the key was revoked manually"
	case errors.Is(r.Err, errStoreDown):
		return "no credential: store down"
	case answered && api.StatusCode != http.StatusServiceUnavailable:
		return ""
	case w.unreachable(began):
		return "no credential: exchange out of reach"
	default:
		return ""
	}
}

// secretSet has every secret that the soak has seen.
type secretSet struct {
	mu  sync.Mutex
	all map[string]bool
}

func (s *secretSet) add(secrets ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range secrets {
		if v != "" {
			s.all[v] = true
		}
	}
}

// scanner remembers the words of a text that are long enough to be a secret, or
// a part of one that would do.
type scanner struct {
	copy  io.Writer // nil: none
	mu    sync.Mutex
	words map[string]bool
	bytes int
}

func isWordByte(r rune) bool {
	return r|0x20 >= 'a' && r|0x20 <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '-'
}

func (s *scanner) Write(p []byte) (int, error) {
	const least = 16
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += len(p)
	if s.copy != nil {
		_, _ = s.copy.Write(p)
	}
	for word := range strings.FieldsFuncSeq(string(p), func(r rune) bool { return !isWordByte(r) }) {
		if len(word) >= least {
			s.words[word] = true
		}
	}
	return len(p), nil
}

// leaks are the secrets found, in whole or to one half.
func (s *scanner) leaks(secrets *secretSet) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	secrets.mu.Lock()
	defer secrets.mu.Unlock()
	var found []string
	for secret := range secrets.all {
		half := secret[:len(secret)/2]
		if s.words[secret] || s.words[half] || s.words[secret[len(half):]] {
			found = append(found, secret)
		}
	}
	return found
}

// storedSecret finds the secrets of a key record.
var storedSecret = regexp.MustCompile(`"secret": ?"([^"]+)"`)

// flakyStore is a store that fails now and then: before it saves, after it
// has saved, and for a while.
type flakyStore struct {
	agrenting.Store
	soak *soak
}

func (s *flakyStore) Load(ctx context.Context, name string) (agrenting.Record, error) {
	if s.soak.storeFails(0.01) {
		return agrenting.Record{}, errStoreDown
	}
	return s.Store.Load(ctx, name)
}

func (s *flakyStore) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	for _, m := range storedSecret.FindAllSubmatch(data, -1) {
		s.soak.secrets.add(string(m[1]))
	}
	if s.soak.storeFails(0.03) {
		return "", errStoreDown
	}
	rev, err := s.Store.Save(ctx, name, data, previous)
	if err == nil && s.soak.storeFails(0.03) {
		return "", errStoreDown // it is saved, but who knows
	}
	return rev, err
}
