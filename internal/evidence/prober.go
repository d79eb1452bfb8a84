package evidence

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// Verdict is what the platform says about a credential when asked.
type Verdict uint8

// The verdicts.
const (
	Unknown Verdict = iota
	Alive
	Dead
)

// Asker asks the platform about a credential. It makes one call.
type Asker interface {
	Verdict(ctx context.Context, c secret.Credential) Verdict
}

// Prober finds out whether a credential is dead if a 401 alone does not show it: a
// route may refuse a good credential, for example if it is not open to this kind,
// and renewing because of it would exhaust the source. One call at a time serves
// all callers.
//
// A Prober is safe for concurrent use.
type Prober struct {
	asker Asker
	turn  chan struct{} // holds one token: its owner may use what follows

	cred  secret.Credential
	began time.Time
	last  Verdict

	futile atomic.Int32 // renewals in a row, see RecordFutile
}

// NewProber returns a prober.
func NewProber(a Asker) *Prober {
	p := &Prober{asker: a, turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	return p
}

const (
	// maxFutile is after how many futile renewals the platform's verdicts are not
	// believed any more.
	maxFutile = 2
	// timeout bounds the wait for the platform's answer.
	timeout = 5 * time.Second
)

// Judge returns the platform's verdict about c.
func (p *Prober) Judge(ctx context.Context, c secret.Credential) Verdict {
	if p.futile.Load() >= maxFutile {
		return Unknown
	}
	asked := time.Now()
	select {
	case <-p.turn:
	case <-ctx.Done():
		return Unknown
	}
	defer func() { p.turn <- struct{}{} }()
	// A dead credential stays dead. A credential that was alive may have died before
	// the 401 that is to be explained.
	if !p.cred.Equal(c) || (p.last != Dead && !p.began.After(asked)) {
		p.cred, p.began = c, time.Now()
		p.last = p.ask(ctx, c)
		if p.last != Dead && ctx.Err() != nil {
			p.cred = secret.Credential{} // a canceled caller must not publish a verdict
		}
	}
	return p.last
}

func (p *Prober) ask(ctx context.Context, c secret.Credential) Verdict {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return p.asker.Verdict(ctx, c)
}

// RecordFutile notes that the platform called several new credentials of one request
// dead, one after the other. After two such requests in a row, Judge returns Unknown
// until RecordAccepted is called.
func (p *Prober) RecordFutile() { p.futile.Add(1) }

// RecordAccepted notes that a request succeeded with a renewed credential.
func (p *Prober) RecordAccepted() { p.futile.Store(0) }
