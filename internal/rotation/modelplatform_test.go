package rotation

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

const (
	modelAgent = "agent-1"
	// modelPrefix begins every secret of the model, so that no error may contain it.
	modelPrefix = "sk_model"
	ownerSecret = modelPrefix + "_owner"
)

// platform is a platform with one agent, in memory. Its calls take effect at once;
// the faults around them are up to the process that makes them.
type platform struct {
	sessionsDie bool          // with their key
	delay       time.Duration // until a new key is known
	complain    func(format string, args ...any)

	mu       sync.Mutex
	keys     []*platformKey // in the order in which they were created
	sessions map[string]*platformKey
	answers  map[memory]remembered
}

type platformKey struct {
	id, name, secret string
	created, revoked time.Time
	known            time.Time // from when on the platform accepts it
}

func (k *platformKey) live() bool { return k.revoked.IsZero() }

// memory is what a response is remembered under. All callers act as the agent.
type memory struct{ route, idempotencyKey string }

type remembered struct {
	body   string // of the request
	answer Answer
}

func newPlatform(sessionsDie bool, delay time.Duration, complain func(string, ...any)) *platform {
	return &platform{
		sessionsDie: sessionsDie, delay: delay, complain: complain,
		sessions: map[string]*platformKey{}, answers: map[memory]remembered{},
	}
}

func apiKey(text string) secret.Credential {
	return secret.NewCredential(secret.Material{Kind: secret.KindAPIKey, Secret: text})
}

// newKey creates a key in the dashboard, which works at once.
func (pf *platform) newKey(name string) secret.Credential {
	pf.mu.Lock()
	defer pf.mu.Unlock()
	return apiKey(pf.addLocked(name, 0).secret)
}

func (pf *platform) addLocked(name string, delay time.Duration) *platformKey {
	n, now := len(pf.keys)+1, time.Now()
	k := &platformKey{
		id: fmt.Sprintf("key-%d", n), name: name, secret: fmt.Sprintf("%s_%04d", modelPrefix, n),
		created: now, known: now.Add(delay),
	}
	pf.keys = append(pf.keys, k)
	return k
}

// live returns how many keys are live.
func (pf *platform) live() (n int) {
	pf.mu.Lock()
	defer pf.mu.Unlock()
	return pf.liveLocked()
}

func (pf *platform) liveLocked() (n int) {
	for _, k := range pf.keys {
		if k.live() {
			n++
		}
	}
	return n
}

// accepts reports whether a request with c would be accepted.
func (pf *platform) accepts(c secret.Credential) bool {
	pf.mu.Lock()
	defer pf.mu.Unlock()
	_, ok := pf.authenticateLocked(Caller{Credential: c, Agent: modelAgent})
	return ok
}

var errRefused = errors.New("model: the platform refuses")

func refusal(o Outcome) Answer { return Answer{Outcome: o, Err: errRefused, Sent: time.Now()} }

// missing is a 404 for what a path names.
func missing() Answer {
	return Answer{Outcome: Refused, Missing: true, Err: errRefused, Sent: time.Now()}
}

// authenticateLocked returns the key that the caller has, or whose session it has;
// nil for the owner.
func (pf *platform) authenticateLocked(by Caller) (*platformKey, bool) {
	text := by.Credential.Reveal()
	switch by.Credential.Kind() {
	case secret.KindAPIKey:
		for _, k := range pf.keys {
			if k.secret == text {
				return k, k.live() && !time.Now().Before(k.known)
			}
		}
	case secret.KindSession:
		k := pf.sessions[text]
		return k, k != nil && (k.live() || !pf.sessionsDie)
	case secret.KindUserToken:
		if by.Agent != modelAgent {
			pf.complain("the owner's call names the agent %q", by.Agent)
		}
		return nil, text == ownerSecret
	}
	return nil, false
}

// as makes a call of an authenticated caller.
func (pf *platform) as(by Caller, do func(caller *platformKey) Answer) Answer {
	pf.mu.Lock()
	defer pf.mu.Unlock()
	if by.Agent != "" && by.Agent != modelAgent {
		pf.complain("a call names the agent %q", by.Agent)
	}
	k, ok := pf.authenticateLocked(by)
	if !ok {
		return refusal(Unauthorized)
	}
	return do(k)
}

// onceLocked answers a repeated call with the first answer. fail has the platform
// fail, and remember that.
func (pf *platform) onceLocked(route, idempotencyKey, body string, fail bool, do func() Answer) Answer {
	if idempotencyKey == "" {
		pf.complain("%s without an idempotency key", route)
	}
	at := memory{route, idempotencyKey}
	if r, ok := pf.answers[at]; ok {
		if r.body != body {
			return refusal(Refused)
		}
		return r.answer
	}
	a := refusal(Failed)
	if !fail {
		a = do()
	}
	pf.answers[at] = remembered{body, a}
	return a
}

func issuedAnswer(k *platformKey) Answer {
	return Answer{
		Outcome: Done, Sent: k.created,
		Key: IssuedKey{Credential: apiKey(k.secret), ID: k.id, AgentID: modelAgent, Created: k.created},
	}
}

func (pf *platform) issue(by Caller, name, idempotencyKey string, fail bool) Answer {
	return pf.as(by, func(*platformKey) Answer {
		return pf.onceLocked("issue", idempotencyKey, name, fail, func() Answer {
			return issuedAnswer(pf.addLocked(name, pf.delay))
		})
	})
}

// rotateInPlace rotates the caller's key, or the newest one if it is the owner.
func (pf *platform) rotateInPlace(by Caller, idempotencyKey string, fail bool) Answer {
	return pf.as(by, func(old *platformKey) Answer {
		return pf.onceLocked("rotate in place", idempotencyKey, "", fail, func() Answer {
			if old == nil {
				for _, k := range pf.keys {
					if k.live() {
						old = k
					}
				}
			}
			if old == nil || !old.live() {
				return missing()
			}
			old.revoked = time.Now()
			return issuedAnswer(pf.addLocked(old.name, pf.delay))
		})
	})
}

func (pf *platform) list(by Caller) (all []ListedKey, a Answer) {
	a = pf.as(by, func(*platformKey) Answer {
		for _, k := range pf.keys {
			text := k.secret
			all = append(all, ListedKey{
				ID: k.id, Name: k.name, Created: k.created, Revoked: k.revoked,
				Fits: func(secretText string) bool { return strings.HasSuffix(secretText, text[len(text)-4:]) },
			})
		}
		return Answer{Outcome: Done, Sent: time.Now()}
	})
	return all, a
}

func (pf *platform) revoke(by Caller, id string) Answer {
	return pf.as(by, func(*platformKey) Answer {
		for _, k := range pf.keys {
			if k.id != id || !k.live() {
				continue
			}
			k.revoked = time.Now()
			if pf.liveLocked() == 0 {
				pf.complain("the last live key, %s, was revoked", id)
			}
			return Answer{Outcome: Done, Sent: time.Now()}
		}
		return missing()
	})
}

func (pf *platform) openLifeline(key secret.Credential) (session secret.Credential, a Answer) {
	a = pf.as(Caller{Credential: key}, func(k *platformKey) Answer {
		text := fmt.Sprintf("%s_session_%d", modelPrefix, len(pf.sessions)+1)
		pf.sessions[text] = k
		session = secret.NewCredential(secret.Material{
			Kind: secret.KindSession, Secret: text, Exchanged: true, Expires: time.Now().Add(20 * time.Hour),
		})
		return Answer{Outcome: Done, Sent: time.Now()}
	})
	return session, a
}
