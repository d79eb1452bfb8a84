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
	ask  func(ctx context.Context, cred Credential) verdict
	turn chan struct{} // holds one token: whoever has it may look at the rest

	cred  Credential
	began time.Time
	last  verdict

	// vain counts the requests in a row for which the platform had one fresh
	// credential after the other for dead. After a few, 401s are believed as they
	// come.
	vain atomic.Int32
}

// verdict is what the platform says of a credential.
type verdict uint8

const (
	inDoubt verdict = iota
	alive
	dead
)

// maxVain is how many such requests it takes.
const maxVain = 2

// probeTimeout bounds the wait for the platform's answer.
const probeTimeout = 5 * time.Second

func newProber(c *core) *prober {
	p := &prober{turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	p.ask = func(ctx context.Context, cred Credential) verdict {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		a, err := c.direct(ctx, direct{method: http.MethodGet, path: c.routes.Verify, cred: cred})
		switch {
		case err != nil:
			return inDoubt
		case a.status == http.StatusUnauthorized:
			return dead
		case a.ok() && a.jsonErr == nil:
			return alive
		default:
			return inDoubt
		}
	}
	return p
}

// judge asks whether the platform knows cred.
func (p *prober) judge(ctx context.Context, cred Credential) verdict {
	if p == nil || p.vain.Load() >= maxVain {
		return inDoubt
	}
	asked := time.Now()
	select {
	case <-p.turn:
	case <-ctx.Done():
		return inDoubt
	}
	defer func() { p.turn <- struct{}{} }()
	// What is dead stays so. What was alive may have died before the 401 that is
	// to be explained.
	if !p.cred.Equal(cred) || (p.last != dead && !p.began.After(asked)) {
		p.cred, p.began = cred, time.Now()
		p.last = p.ask(ctx, cred)
		if p.last != dead && ctx.Err() != nil {
			p.cred = Credential{} // who asks next is not to be told what nobody has found out
		}
	}
	return p.last
}
