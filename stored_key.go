package agrenting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/evidence"
	"github.com/agrenting/agrenting-go/internal/gate"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/rotation"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// storedKey is the source of a key that a store keeps: it wires the manager of
// internal/rotation to requests. It implements the manager's ports Keys, Handover
// and Report.
type storedKey struct {
	core    *core
	manager *rotation.Manager
	initial CredentialSource // nil: none
	// notFound says where the initial key was looked for, if there is none.
	notFound error
	owner    CredentialSource // nil: none

	// adopting is held from the check that a key was not replaced until it is in use.
	adopting sync.Mutex

	mu         sync.Mutex
	sessionKey secret.Credential   // the key that was last given out for a session
	prepared   *preparedCredential // the key that was last prepared
	noted      string              // the fingerprint of the key whose age was reported
}

// newStoredKey returns the source of the key in store. initial may be nil; notFound
// then says where it was looked for.
func newStoredKey(c *core, store Store, initial CredentialSource, notFound error) *storedKey {
	p := RotationPolicy{Every: -1}
	if c.cfg.rotation != nil {
		p = *c.cfg.rotation
	}
	p = p.withDefaults(store)
	agent := p.AgentID
	if agent == "" {
		agent = c.agent.id()
	}
	k := &storedKey{core: c, initial: initial, notFound: notFound, owner: p.Owner}
	k.manager = rotation.New(rotation.Config{
		Policy:   p.internal(c.agent.id()),
		Store:    record.Keys(c.recordConfig(store, agent)),
		Platform: platformCalls{c}, Keys: k, Handover: k, Report: k,
	})
	return k
}

// Credential implements [CredentialSource].
func (k *storedKey) Credential(ctx context.Context) (Credential, error) {
	return k.give(ctx, secret.Credential{})
}

// Refresh implements [Refresher].
func (k *storedKey) Refresh(ctx context.Context, rejected Credential) (Credential, error) {
	return k.give(ctx, rejected.c)
}

// give chooses the key to obtain a session with. While the store is out of reach,
// the one in memory is used, and while it does not respond at all, the initial key.
func (k *storedKey) give(ctx context.Context, rejected secret.Credential) (Credential, error) {
	key, err := k.chooseInTime(ctx, rejected)
	if err != nil {
		var ok bool
		if key, ok = k.manager.Remembered(rejected); !ok {
			return Credential{}, publicRotation(err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.core.evidence.Of(key.Credential, k.provenanceOf(key, !k.sessionKey.IsZero() && !k.sessionKey.Equal(key.Credential)))
	k.sessionKey = key.Credential
	return Credential{key.Credential}, nil
}

// chooseInTime gives a store that has never answered a third of the time. A store that
// ignores its context takes twice that, and the initial key also needs time.
func (k *storedKey) chooseInTime(ctx context.Context, rejected secret.Credential) (record.StoredKey, error) {
	end, limited := ctx.Deadline()
	if k.initial == nil || !limited || !rejected.IsZero() || k.manager.Knows() {
		key, _, err := k.manager.Choose(ctx, rejected)
		return key, err
	}
	part, cancel := context.WithTimeout(ctx, time.Until(end)/3)
	defer cancel()
	key, _, err := k.manager.Choose(part, rejected)
	if errors.Is(err, context.DeadlineExceeded) && part.Err() != nil && ctx.Err() == nil {
		c, ierr := k.Initial(ctx)
		if ierr != nil {
			return key, errors.Join(err, ierr)
		}
		return record.StoredKey{Credential: c}, nil
	}
	return key, err
}

// provenanceOf reports whether a key was issued lately. A key that has replaced
// another one in this process was. For the first key, the record decides.
func (k *storedKey) provenanceOf(key record.StoredKey, replaces bool) evidence.Provenance {
	age := time.Since(key.Created)
	return provenance(replaces || (k.manager.Issued(key.Credential) && age.Abs() < time.Minute))
}

func provenance(lately bool) evidence.Provenance {
	if lately {
		return evidence.Issued
	}
	return evidence.Given
}

// fetch is the engine's source if the key itself authenticates requests.
func (k *storedKey) fetch(ctx context.Context, q renew.Query[*preparedCredential]) (renew.Grant[*preparedCredential], error) {
	var rejected secret.Credential
	if q.HasRejected {
		rejected = q.Rejected.cred.c
	}
	key, reason, err := k.manager.Choose(ctx, rejected)
	if err != nil {
		known, ok := k.manager.Remembered(rejected)
		if !ok || !q.HasRejected { // otherwise, the key in use continues to be used
			return renew.Grant[*preparedCredential]{}, publicRotation(err)
		}
		key, reason = known, renew.Adopted
	}
	return k.grant(key, q.HasCurrent, reason)
}

func (k *storedKey) grant(key record.StoredKey, known bool, reason renew.Reason) (renew.Grant[*preparedCredential], error) {
	s, err := k.prepare(key)
	if err != nil {
		return renew.Grant[*preparedCredential]{}, err
	}
	g := renew.Grant[*preparedCredential]{Value: s, Recheck: k.recheck()}
	if known {
		g.Reason = reason
	}
	return g, nil
}

// prepare makes a key ready for use, once: all requests with it must pass the same gate,
// however often the store is loaded. A gate that a rotation has closed for good is
// replaced.
func (k *storedKey) prepare(key record.StoredKey) (*preparedCredential, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.prepared; s != nil && s.cred.c.Equal(key.Credential) && !s.gate.Over() {
		return s, nil
	}
	s, err := k.core.prepare(Credential{key.Credential}, k.provenanceOf(key, k.prepared != nil && !k.prepared.cred.c.Equal(key.Credential)))
	if err == nil {
		k.prepared = s
	}
	return s, err
}

func (k *storedKey) recheck() time.Duration { return k.manager.Recheck() }

func (k *storedKey) lineage(key Credential) string { return k.manager.Lineage(key.c) }

func (k *storedKey) close() error { return publicRotation(k.manager.Close()) }

// Initial implements rotation.Keys.
func (k *storedKey) Initial(ctx context.Context) (secret.Credential, error) {
	if k.initial == nil {
		return secret.Credential{}, k.notFound
	}
	c, err := credentialFrom(ctx, k.initial)
	if err == nil {
		err = k.core.checkKey(c)
	}
	return c.c, err
}

// HasInitial implements rotation.Keys.
func (k *storedKey) HasInitial() bool { return k.initial != nil }

// Owner implements rotation.Keys.
func (k *storedKey) Owner(ctx context.Context) (secret.Credential, error) {
	c, err := credentialFrom(ctx, k.owner)
	if err := k.core.checkOwner(c, err); err != nil {
		return secret.Credential{}, err
	}
	return c.c, nil
}

// HasOwner implements rotation.Keys.
func (k *storedKey) HasOwner() bool { return k.owner != nil }

// Admit implements rotation.Keys.
func (k *storedKey) Admit(c secret.Credential) error { return k.core.admit(Credential{c}) }

// checkOwner checks the owner credential like any other credential.
func (c *core) checkOwner(owner Credential, err error) error {
	if err == nil {
		err = c.admit(owner)
	}
	if err != nil {
		return fmt.Errorf("RotationPolicy.Owner: %w", err)
	}
	return nil
}

// InUse implements rotation.Handover.
func (k *storedKey) InUse() rotation.Generation {
	l := k.core.creds.engine.Current()
	if l == nil {
		return rotation.Generation{}
	}
	return rotation.Generation{Credential: l.Value.cred.c, Handle: l.Value}
}

// Serves implements rotation.Handover.
func (k *storedKey) Serves(key secret.Credential) bool {
	if k.core.cfg.session == nil {
		return k.InUse().Credential.Equal(key)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sessionKey.IsZero() || k.sessionKey.Equal(key)
}

// Adopt implements rotation.Handover.
func (k *storedKey) Adopt(ctx context.Context, key record.StoredKey, reason renew.Reason) error {
	engine := k.core.creds.engine
	if k.core.cfg.session != nil { // a rotated key means a new session
		_, err := engine.Renew(ctx)
		return err
	}
	k.adopting.Lock()
	defer k.adopting.Unlock()
	if k.manager.Superseded(key.Credential) {
		return nil // the store has reported an outdated key
	}
	g, err := k.grant(key, false, reason)
	if err == nil {
		_, err = engine.Put(g, reason)
	}
	return err
}

// Hold implements rotation.Handover. It also holds requests with sessions that were
// replaced lately or that will be obtained while the rotation runs.
func (k *storedKey) Hold(g rotation.Generation) []<-chan struct{} {
	held := k.core.gates.Hold()
	if gt := gateOf(g); gt != nil {
		held = append(held, gt.Shut())
	}
	return held
}

// Release implements rotation.Handover.
func (k *storedKey) Release(g rotation.Generation, replaced bool) {
	switch gt := gateOf(g); {
	case gt == nil:
	case replaced && k.InUse().Handle != g.Handle:
		gt.Pass()
	default:
		gt.Open()
	}
	k.core.gates.Release()
}

// Retire implements rotation.Handover.
func (k *storedKey) Retire(g rotation.Generation) <-chan struct{} {
	gt := gateOf(g)
	if gt == nil {
		done := make(chan struct{})
		close(done)
		return done
	}
	drained := gt.Shut()
	gt.Pass()
	return drained
}

func gateOf(g rotation.Generation) *gate.Gate {
	s, ok := g.Handle.(*preparedCredential)
	if !ok {
		return nil
	}
	return s.gate
}

// waiting is the Reason of an EventRotating that is not a stage.
const waiting = "waiting"

// Stage implements rotation.Report.
func (k *storedKey) Stage(rec record.Key, stage string) {
	k.core.emitRotation(slog.LevelDebug, EventRotating, stage, rec, nil)
}

// Waiting implements rotation.Report.
func (k *storedKey) Waiting(rec record.Key, left time.Duration) { k.core.emitWaiting(rec, left) }

// Rotated implements rotation.Report.
func (k *storedKey) Rotated(rec record.Key, how string) {
	k.core.emitRotation(slog.LevelInfo, EventRotated, how, rec, nil)
}

// Failed implements rotation.Report.
func (k *storedKey) Failed(rec record.Key, err error) {
	err = publicRotation(err)
	stage := ""
	if e, ok := errors.AsType[*RotationError](err); ok {
		stage = string(e.Stage)
	}
	k.core.emitRotation(slog.LevelError, EventRotationFailed, stage, rec, err)
}

// Old implements rotation.Report.
func (k *storedKey) Old(rec record.Key) {
	fingerprint := rec.Current.Credential.Fingerprint()
	k.mu.Lock()
	noted := k.noted == fingerprint
	k.noted = fingerprint
	k.mu.Unlock()
	if !noted {
		k.core.emitRotation(slog.LevelWarn, EventKeyOld, "the key is older than 90 days; rotate it, or set WithRotation", rec, nil)
	}
}

// StoreFailed implements rotation.Report.
func (k *storedKey) StoreFailed(what string, err error) {
	k.core.StoreFailed(what, publicRotation(err))
}
