package agrenting

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/internal/evidence"
)

// Ready returns nil if requests can be sent, and otherwise an error that says why not:
//
//   - [StateReady] and [StateRenewing] are ready, whatever LastError says: the credential in
//     use is good.
//   - [StateWaiting] is ready until an attempt fails: requests wait for the renewal under
//     way, or cause it.
//   - [StateEmpty], [StateFailing] and [StateRejected] are not ready. The error matches
//     what LastError matches.
//   - [StateClosed] is not ready. The error matches [ErrClosed].
//
// A store that fails and a key that is overdue do not count: requests are sent without
// the store, and with an old key.
func (s Status) Ready() error {
	switch {
	case s.State == StateReady, s.State == StateRenewing, s.State == StateWaiting && s.Failures == 0:
		return nil
	case s.State == StateClosed:
		return fmt.Errorf("agrenting: not ready: %w", ErrClosed)
	case s.State == StateRejected && s.LastError != nil:
		return fmt.Errorf("agrenting: not ready: %w", s.LastError)
	case s.LastError != nil:
		err := fmt.Errorf("agrenting: not ready: the renewal of the credential has failed: %w", s.LastError)
		if !s.RetryAt.IsZero() {
			err = fmt.Errorf("%w. The next attempt is due at %s", err, s.RetryAt.UTC().Format(time.RFC3339))
		}
		return err
	default:
		return fmt.Errorf("agrenting: not ready: %w: none was obtained yet from %s", ErrNoCredential, s.Source)
	}
}

// probeWait is how long a probe waits for a credential. Kubernetes gives a probe 1 s.
const probeWait = 500 * time.Millisecond

// ReadyHandler returns a handler for readiness probes, for example of Kubernetes:
//
//	http.Handle("/readyz", client.ReadyHandler())
//
// It returns 200 if [Status.Ready] returns nil, and 503 otherwise, with a small JSON object
// such as
//
//	{"ready":false,"state":"failing","reason":"agrenting: not ready: ..."}
//
// The reason contains no secret, but it names sources and hosts: serve it where your
// operators are, not in public. Methods other than GET and HEAD get 405.
//
// A probe makes no request to the platform while the client is ready. A client that is not
// ready gets no traffic that would make it ready, so a probe then does what a request
// would: it obtains the first credential, asks the source again after a failure or a
// rejection, and every 30 s at most asks the platform whether it still rejects the
// credential. It waits for up to 0.5 s and responds with what is known then. The pauses of
// renewals apply, however often probes come.
func (c *Client) ReadyHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		s := c.Status()
		if s.Ready() != nil {
			ctx, cancel := context.WithTimeout(r.Context(), probeWait)
			c.core.creds.prompt(ctx)
			cancel()
			s = c.Status()
		}
		answer, status := struct {
			Ready  bool   `json:"ready"`
			State  State  `json:"state"`
			Reason string `json:"reason,omitempty"`
		}{Ready: true, State: s.State}, http.StatusOK
		if err := s.Ready(); err != nil {
			answer.Ready, answer.Reason, status = false, errorText(err), http.StatusServiceUnavailable
		}
		body, _ := json.Marshal(answer) // of bools and strings
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(status)
		_, _ = w.Write(append(body, '\n'))
	})
}

// prompt does what a request would do to get a usable credential.
func (k *credentialCache) prompt(ctx context.Context) {
	gen := k.fixed.Load()
	if k.engine != nil {
		gen, _ = k.engine.Get(ctx)
	}
	if gen == nil {
		return
	}
	r, rejected := gen.Value.history.Rejected()
	if !rejected {
		return
	}
	gen.Value.history.AskAgain(ctx)
	switch {
	case k.engine == nil:
	case r.Verdict == evidence.Dead:
		_, _ = k.engine.Reject(ctx, gen.Number, false)
	default:
		_, _ = k.renewDoubted(ctx, gen) // there are limits for that
	}
}
