package agrenting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

const (
	// storeRecheck is how often a store that does not tell of changes is looked at
	// while there is traffic, watchedRecheck how often one that does.
	storeRecheck   = time.Second
	watchedRecheck = 30 * time.Second
	// maxPoll is the longest pause between two loads of a record on which another
	// process is at work. The pauses grow up to it; a watched store ends them early.
	maxPoll = 2 * time.Second
)

// Credential implements [CredentialSource].
func (r *rotator) Credential(ctx context.Context) (Credential, error) {
	return r.give(ctx, secret.Credential{})
}

// Refresh implements [Refresher].
func (r *rotator) Refresh(ctx context.Context, rejected Credential) (Credential, error) {
	return r.give(ctx, rejected.c)
}

// give chooses the key to buy a session with, and remembers which it was. While
// the store is out of reach, the one in memory has to do.
func (r *rotator) give(ctx context.Context, rejected secret.Credential) (Credential, error) {
	k, _, err := r.choose(ctx, rejected)
	if err != nil {
		known, ok := r.remembered(rejected)
		if !ok {
			return Credential{}, err
		}
		k = known
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.given = k.Credential
	return Credential{k.Credential}, nil
}

// remembered is the key as last seen, if the store cannot be asked for a newer
// one and nothing speaks against it.
func (r *rotator) remembered(rejected secret.Credential) (record.StoredKey, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last.Body.Current, r.storeErr != nil && r.goodLocked(rejected)
}

// goodLocked reports whether nothing speaks against the key in memory.
func (r *rotator) goodLocked(rejected secret.Credential) bool {
	k := r.last.Body.Current
	return !k.IsZero() && !replaced(r.last.Body) && !k.Credential.Equal(rejected)
}

// fetch is the engine's source where the key itself authenticates requests.
func (r *rotator) fetch(ctx context.Context, q renew.Query[*stamp]) (renew.Grant[*stamp], error) {
	var rejected secret.Credential
	if q.HasRejected {
		rejected = q.Rejected.cred.c
	}
	k, reason, err := r.choose(ctx, rejected)
	if err != nil {
		known, ok := r.remembered(rejected)
		if !ok || !q.HasRejected { // else what is in use serves on
			return renew.Grant[*stamp]{}, err
		}
		k, reason = known, renew.Adopted
	}
	return r.grant(k, q.HasCurrent, reason)
}

func (r *rotator) grant(k record.StoredKey, known bool, reason renew.Reason) (renew.Grant[*stamp], error) {
	s, err := r.stampOf(k.Credential)
	if err != nil {
		return renew.Grant[*stamp]{}, err
	}
	g := renew.Grant[*stamp]{Value: s, Recheck: r.recheck()}
	if known {
		g.Reason = reason
	}
	return g, nil
}

// stampOf stamps a key, once: all requests with it have to pass the same gate,
// however often the store is looked at meanwhile. A gate that a rotation has
// left closed for good is replaced.
func (r *rotator) stampOf(c secret.Credential) (*stamp, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.stamped; s != nil && s.cred.c.Equal(c) && !s.gate.Over() {
		return s, nil
	}
	s, err := r.core.stamp(Credential{c})
	if err == nil {
		r.stamped = s
	}
	return s, err
}

// choose gives the key to use: the store's, and in place of one that the
// platform rejected whatever may be its successor. It asks the store first, so
// that a rotation made by another process costs no call of the platform.
func (r *rotator) choose(ctx context.Context, rejected secret.Credential) (record.StoredKey, renew.Reason, error) {
	r.watch()
	fellBack := false
	for pause := time.Millisecond; ; pause = min(2*pause, maxPoll) {
		news := r.awaitNews()
		e, err := r.load(ctx, rejected)
		if err != nil {
			return record.StoredKey{}, 0, err
		}
		r.schedule(e)
		rec := e.Body
		refused := !rejected.IsZero() && rec.Current.Credential.Equal(rejected)
		switch {
		case !refused && !replaced(rec):
			return rec.Current, renew.Adopted, nil
		case rec.Intent == nil:
			k, reason, err := r.replaceRejected(ctx, e)
			if !errors.Is(err, ErrConflictingWrite) {
				return k, reason, err
			}
		case refused && !rec.Previous.IsZero() && !fellBack:
			// While a new key spreads over the platform, the one before may still do.
			fellBack = true
			if r.verify(ctx, rec.Previous.Credential) == nil {
				return rec.Previous, renew.Adopted, nil
			}
		}
		// The key was rejected while it is being rotated: its successor is on
		// the way, or somebody has to finish the work of a process that died.
		if rec.Intent != nil && !r.atWork(e) {
			if err := r.resume(); err != nil {
				return record.StoredKey{}, 0, err
			}
		}
		if err := r.pause(ctx, pause, news, nil); err != nil {
			return record.StoredKey{}, 0, err
		}
	}
}

// replaced reports whether the current key is known to be dead: the platform
// has put the pending one in its place.
func replaced(r record.Key) bool {
	return r.Intent != nil && r.Intent.Strategy == InPlace.String() && !r.Pending.IsZero()
}

// resume has an unfinished rotation finished, unless the last attempt has
// failed just now.
func (r *rotator) resume() error {
	r.mu.Lock()
	err := r.lastErr
	at := r.endedAt.Add(renew.Doubled(time.Second, r.policy.RetryEvery, r.failed))
	r.mu.Unlock()
	if err != nil && time.Now().Before(at) {
		return &pausedError{at: at, err: err}
	}
	if r.start(false) == nil {
		return ErrClosed
	}
	return nil
}

// replaceRejected looks for another key when no rotation explains why the
// current one was rejected: what somebody has put into the seed.
func (r *rotator) replaceRejected(ctx context.Context, e keyEntry) (record.StoredKey, renew.Reason, error) {
	rec := e.Body
	c, err := r.newSeed(ctx, rec)
	if err != nil {
		return record.StoredKey{}, 0, err
	}
	if c.IsZero() {
		return rec.Current, renew.Rejected, nil // insists: the caller sees its 401
	}
	next := rec.Clone()
	next.Ancestors = next.Remember(rec.Current.Credential.Fingerprint())
	next.Previous = record.StoredKey{}
	next.Current = record.StoredKey{Credential: c, Created: wallNow(), ID: r.policy.KeyID}
	if r.policy.AgentID != "" {
		next.Agent = r.policy.AgentID
	}
	next.Generation++
	err = r.write(ctx, e, next)
	switch {
	case errors.Is(err, ErrConflictingWrite):
		return record.StoredKey{}, 0, err
	case errors.Is(err, ErrReadOnlyStore):
		// Whoever provides the key will replace it some day.
		r.substitute(rec.Current.Credential, next)
		r.core.storeFailed("save", err)
	case err != nil:
		r.keep(next)
	default:
		r.core.emitRotation(slog.LevelInfo, EventRotated, "a key provided by an operator was adopted", next, nil)
	}
	return next.Current, renew.Adopted, nil
}

// substitute is what is used in place of a key that was rejected, as long as a
// store that cannot be written has it.
type substitute struct {
	dead secret.Credential
	rec  record.Key
}

func (r *rotator) substitute(dead secret.Credential, rec record.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.instead; !s.dead.IsZero() && s.rec.Current.Credential.Equal(dead) {
		dead = s.dead // what was used in its place is dead as well
	}
	r.instead = substitute{dead: dead, rec: rec.Clone()}
}

// substitutedLocked is a record of the store, or what is used in its place.
func (r *rotator) substitutedLocked(rec record.Key) record.Key {
	if s := r.instead; !s.dead.IsZero() && rec.Intent == nil && rec.Current.Credential.Equal(s.dead) {
		return s.rec.Clone()
	}
	return rec
}

// newSeed is the seed, if the store has never seen it and the platform knows
// it. The error says that it could not be tried.
func (r *rotator) newSeed(ctx context.Context, rec record.Key) (secret.Credential, error) {
	if r.seed == nil {
		return secret.Credential{}, nil
	}
	c, err := r.seed.Credential(ctx)
	if err != nil || c.validate() != nil || rec.Knows(c.c) || r.core.checkKey(c) != nil {
		return secret.Credential{}, nil //nolint:nilerr // there is no such key, which is not an error here
	}
	switch err := r.verify(ctx, c.c); {
	case err == nil:
		return c.c, nil
	case errors.Is(err, ErrUnauthorized):
		return secret.Credential{}, nil
	default:
		return secret.Credential{}, err
	}
}

// read loads the record. A store that hangs does not get all the time of the
// caller if there is a key in memory that can be used: one other than rejected,
// which may be zero.
func (r *rotator) read(ctx context.Context, rejected secret.Credential) (keyEntry, error) {
	r.mu.Lock()
	patience := r.policy.CallTimeout
	if r.unsaved == nil && !r.goodLocked(rejected) {
		patience = max(patience, neededLoad)
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	e, err := r.slot.Load(ctx)
	err = r.withoutKeys(err, e.Body)
	r.reached("load", err)
	return e, err
}

// neededLoad limits a load of the store that a request depends on: it is what the
// engine allows a fetch.
const neededLoad = 30 * time.Second

// write replaces the entry, unless another process holds the lease.
func (r *rotator) write(ctx context.Context, e keyEntry, rec record.Key) error {
	if e.Lease.Holder != r.holder && r.slot.Left(e) > 0 {
		return fmt.Errorf("%w: another process is rotating the key", ErrConflictingWrite)
	}
	e.Body, e.Lease = rec, record.Lease{Counter: e.Lease.Counter}
	_, err := r.slot.Save(ctx, e)
	err = r.withoutKeys(err, rec)
	r.reached("save", err)
	return err
}

// maxSeen bounds how many of the latest credentials are looked for in what a store
// says. A rotation has five.
const maxSeen = 20

// withoutKeys is what a store says about a record, without its keys and those of
// the records before: a database may quote a row.
func (r *rotator) withoutKeys(err error, rec record.Key) error {
	r.mu.Lock()
	for _, c := range rec.Credentials() {
		if !slices.ContainsFunc(r.seen, c.Equal) {
			r.seen = append(r.seen[max(0, len(r.seen)+1-maxSeen):], c)
		}
	}
	seen := r.seen
	r.mu.Unlock()
	if err == nil {
		return nil
	}
	var secrets []string
	for _, c := range seen {
		secrets = append(secrets, c.Reveal())
	}
	return secret.WithoutSecrets(err, secrets...)
}

func (r *rotator) storeError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.storeErr
}

// reached notes whether the store did what it was asked for, and tells of the
// first failure in a row.
func (r *rotator) reached(what string, err error) {
	if err != nil && (errors.Is(err, ErrNoRecord) || errors.Is(err, ErrConflictingWrite) || errors.Is(err, ErrReadOnlyStore)) {
		err = nil // an answer, too
	}
	r.mu.Lock()
	first := err != nil && r.storeErr == nil
	r.storeErr = err
	r.mu.Unlock()
	if first {
		r.core.storeFailed(what, err)
	}
}

// load reads the record; an empty store is filled with the initial key. A key that
// the store has refused comes before what the store holds. rejected is as for read.
func (r *rotator) load(ctx context.Context, rejected secret.Credential) (keyEntry, error) {
	e, err := r.read(ctx, rejected)
	r.mu.Lock()
	held := r.unsaved != nil
	e.Body = r.substitutedLocked(e.Body)
	r.mu.Unlock()
	if errors.Is(err, ErrNoRecord) && !held {
		e, err = r.plant(ctx, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.unsaved; u != nil && (err != nil || u.Generation > e.Body.Generation) {
		e.Body = u.Clone()
		r.last = e
		return e, nil
	}
	if err == nil && e.Body.Generation >= r.last.Body.Generation { // a newer one may have been reported meanwhile
		r.last = e
	}
	return e, err
}

// plant fills an empty store with the initial key. If the store refuses it, no
// request fails: the key is used from memory, and nothing is rotated until it can
// be saved.
func (r *rotator) plant(ctx context.Context, empty error) (keyEntry, error) {
	if r.seed == nil {
		return keyEntry{}, fmt.Errorf("agrenting: the store is empty; fill it with WithCredential or from the environment: %w (%w)", r.noSeed, empty)
	}
	c, err := r.seed.Credential(ctx)
	if err != nil {
		return keyEntry{}, err
	}
	if err := r.core.checkKey(c); err != nil {
		return keyEntry{}, err
	}
	rec := record.Key{
		Agent: r.policy.AgentID, Lineage: record.LineageOf(c.c), Generation: 1,
		Current: record.StoredKey{Credential: c.c, ID: r.policy.KeyID, Created: wallNow(), Expires: c.Expires()},
	}
	e, err := r.slot.Save(ctx, keyEntry{Body: rec})
	err = r.withoutKeys(err, rec)
	r.reached("save", err)
	switch {
	case err == nil:
		return e, nil
	case errors.Is(err, ErrConflictingWrite):
		return r.read(ctx, secret.Credential{})
	case errors.Is(err, ErrReadOnlyStore):
		r.mu.Lock()
		told := r.last.Body.Current.Credential.Equal(c.c)
		r.mu.Unlock()
		if !told {
			r.core.storeFailed("save", err)
		}
	default:
		r.keep(rec)
	}
	return keyEntry{Body: rec}, nil
}

// lineage returns the lineage of a key that this source gave out.
func (r *rotator) lineage(key Credential) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := r.last.Body; last.Lineage != "" && last.Knows(key.c) {
		return last.Lineage
	}
	return record.LineageOf(key.c)
}
