package agrenting

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"
)

// prober finds out whether a credential is dead, where a 401 alone does not
// tell: a route may refuse one that is good, as when it is not open to this kind
// of credential, and renewing on its account would exhaust the source.
//
// One call at a time serves all who ask; it costs nothing but the platform's
// answer to [Routes].Verify.
type prober struct {
	ask  func(ctx context.Context, cred Credential) (dead bool)
	turn chan struct{} // holds one token: whoever has it may look at the rest

	cred  Credential
	began time.Time
	dead  bool

	// vain counts the requests in a row for which the platform had one fresh
	// credential after the other for dead. After a few, 401s are believed as they
	// come.
	vain atomic.Int32
}

// maxVain is how many such requests it takes.
const maxVain = 2

// probeTimeout bounds the wait for the platform's answer.
const probeTimeout = 5 * time.Second

func newProber(c *core) *prober {
	p := &prober{turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	p.ask = func(ctx context.Context, cred Credential) bool {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		a, err := c.direct(ctx, direct{method: http.MethodGet, path: c.routes.Verify, cred: cred})
		return err == nil && a.status == http.StatusUnauthorized
	}
	return p
}

// isDead reports whether the platform does not know cred any more. In doubt it
// is not dead.
func (p *prober) isDead(ctx context.Context, cred Credential) bool {
	if p == nil || p.vain.Load() >= maxVain {
		return false
	}
	asked := time.Now()
	select {
	case <-p.turn:
	case <-ctx.Done():
		return false
	}
	defer func() { p.turn <- struct{}{} }()
	// What is dead stays so. What was alive may have died before the 401 that is
	// to be explained.
	if !p.cred.Equal(cred) || (!p.dead && !p.began.After(asked)) {
		p.cred, p.began = cred, time.Now()
		p.dead = p.ask(ctx, cred)
		if !p.dead && ctx.Err() != nil {
			p.cred = Credential{} // who asks next is not to be told what nobody has found out
		}
	}
	return p.dead
}
