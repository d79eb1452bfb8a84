package agrenting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
)

const (
	// storeRecheck is how often a store that does not tell of changes is looked at
	// while there is traffic, watchedRecheck how often one that does.
	storeRecheck   = time.Second
	watchedRecheck = 15 * time.Second
	// pollStore is the longest pause between two looks at a record in which another
	// process is rotating, watchedPoll the same for a store that tells of changes.
	pollStore   = 25 * time.Millisecond
	watchedPoll = time.Second
)

// Credential implements [CredentialSource].
func (r *rotator) Credential(ctx context.Context) (Credential, error) {
	return r.give(ctx, Credential{})
}

// Refresh implements [Refresher].
func (r *rotator) Refresh(ctx context.Context, rejected Credential) (Credential, error) {
	return r.give(ctx, rejected)
}

// give chooses the key to buy a session with, and remembers which it was. While
// the store is out of reach, the one in memory has to do.
func (r *rotator) give(ctx context.Context, rejected Credential) (Credential, error) {
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
	return k.Credential, nil
}

// remembered is the key as last seen, if the store cannot be asked for a newer
// one and nothing speaks against it.
func (r *rotator) remembered(rejected Credential) (StoredKey, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last.Current, r.storeErr != nil && r.goodLocked(rejected)
}

// goodLocked reports whether nothing speaks against the key in memory.
func (r *rotator) goodLocked(rejected Credential) bool {
	k := r.last.Current
	return !k.IsZero() && !r.last.replaced() && !k.Credential.Equal(rejected)
}

// fetch is the engine's source where the key itself authenticates requests.
func (r *rotator) fetch(ctx context.Context, q renew.Query[*stamp]) (renew.Grant[*stamp], error) {
	var rejected Credential
	if q.HasRejected {
		rejected = q.Rejected.cred
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

func (r *rotator) grant(k StoredKey, known bool, reason renew.Reason) (renew.Grant[*stamp], error) {
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
func (r *rotator) stampOf(c Credential) (*stamp, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.stamped; s != nil && s.cred.Equal(c) && !s.gate.Over() {
		return s, nil
	}
	s, err := r.core.stamp(c)
	if err == nil {
		r.stamped = s
	}
	return s, err
}

// choose gives the key to use: the store's, and in place of one that the
// platform rejected whatever may be its successor. It asks the store first, so
// that a rotation made by another process costs no call of the platform.
func (r *rotator) choose(ctx context.Context, rejected Credential) (StoredKey, renew.Reason, error) {
	r.watch()
	fellBack := false
	for pause := time.Millisecond; ; pause = min(2*pause, watchedPoll) {
		news := r.awaitNews()
		rec, rev, err := r.load(ctx, rejected)
		if err != nil {
			return StoredKey{}, 0, err
		}
		r.schedule(rec)
		refused := !rejected.IsZero() && rec.Current.Credential.Equal(rejected)
		switch {
		case !refused && !rec.replaced():
			return rec.Current, renew.Adopted, nil
		case rec.Intent == nil:
			k, reason, err := r.replaceRejected(ctx, rec, rev)
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
		if rec.Intent != nil && !r.held(rec.Intent) {
			if err := r.resume(); err != nil {
				return StoredKey{}, 0, err
			}
		}
		if err := r.pause(ctx, pause, news, nil); err != nil {
			return StoredKey{}, 0, err
		}
	}
}

// replaced reports whether the current key is known to be dead: the platform
// has put the pending one in its place.
func (r KeyRecord) replaced() bool {
	return r.Intent != nil && r.Intent.Strategy == InPlace && !r.Pending.IsZero()
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
func (r *rotator) replaceRejected(ctx context.Context, rec KeyRecord, rev Revision) (StoredKey, renew.Reason, error) {
	c, err := r.newSeed(ctx, rec)
	if err != nil {
		return StoredKey{}, 0, err
	}
	if c.IsZero() {
		return rec.Current, renew.Rejected, nil // insists: the caller sees its 401
	}
	next := rec.clone()
	next.Ancestors = next.remember(rec.Current.Credential.Fingerprint())
	next.Previous = StoredKey{}
	next.Current = StoredKey{Credential: c, Created: wallNow(), ID: r.policy.KeyID, AgentID: r.policy.AgentID}
	next.Generation++
	_, err = r.write(ctx, next, rev)
	switch {
	case errors.Is(err, ErrConflictingWrite):
		return StoredKey{}, 0, err
	case errors.Is(err, ErrReadOnlyStore):
		// Whoever provides the key will replace it some day.
		r.substitute(rec.Current.Credential, next)
		r.core.storeFailed("save", err)
	case err != nil:
		r.keep(next)
	default:
		r.core.emitRotation(slog.LevelInfo, EventRotated, "a key put there by hand was adopted", next, nil)
	}
	return next.Current, renew.Adopted, nil
}

// substitute is what is used in place of a key that was rejected, as long as a
// store that cannot be written has it.
type substitute struct {
	dead Credential
	rec  KeyRecord
}

func (r *rotator) substitute(dead Credential, rec KeyRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.instead; !s.dead.IsZero() && s.rec.Current.Credential.Equal(dead) {
		dead = s.dead // what was used in its place is dead as well
	}
	r.instead = substitute{dead: dead, rec: rec.clone()}
}

// substitutedLocked is a record of the store, or what is used in its place.
func (r *rotator) substitutedLocked(rec KeyRecord) KeyRecord {
	if s := r.instead; !s.dead.IsZero() && rec.Intent == nil && rec.Current.Credential.Equal(s.dead) {
		return s.rec.clone()
	}
	return rec
}

// newSeed is the seed, if the store has never seen it and the platform knows
// it. The error says that it could not be tried.
func (r *rotator) newSeed(ctx context.Context, rec KeyRecord) (Credential, error) {
	if r.seed == nil {
		return Credential{}, nil
	}
	c, err := r.seed.Credential(ctx)
	if err != nil || c.validate() != nil || rec.knows(c) || r.core.checkKey(c) != nil {
		return Credential{}, nil //nolint:nilerr // there is no such seed, and that is no error here
	}
	switch err := r.verify(ctx, c); {
	case err == nil:
		return c, nil
	case errors.Is(err, ErrUnauthorized):
		return Credential{}, nil
	default:
		return Credential{}, err
	}
}

// read is Load of the store. A store that panics has failed: it must not take
// the program with it, or a key that is in memory alone. One that hangs does not
// get all the time of whoever asks, while there is a key in memory to go on with:
// another one than rejected, which may be none.
func (r *rotator) read(ctx context.Context, rejected Credential) (rec KeyRecord, rev Revision, err error) {
	r.mu.Lock()
	patience := r.policy.CallTimeout
	if r.unsaved == nil && !r.goodLocked(rejected) {
		patience = max(patience, neededLook)
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = panicked("the key store", p)
		}
		err = r.withoutKeys(err, rec)
		r.reached("load", err)
	}()
	return r.store.Load(ctx)
}

// neededLook is the time for a look at the store without which no request can be
// made: what the engine allows a fetch.
const neededLook = 30 * time.Second

// write is Save of the store, likewise.
func (r *rotator) write(ctx context.Context, rec KeyRecord, prev Revision) (rev Revision, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked("the key store", p)
		}
		err = r.withoutKeys(err, rec)
		r.reached("save", err)
	}()
	return r.store.Save(ctx, rec, prev)
}

// maxSeen bounds how many of the latest credentials are looked for in what a store
// says. A rotation has five.
const maxSeen = 20

// withoutKeys is what a store says about a record, without its keys and those of
// the records before: a database may quote a row.
func (r *rotator) withoutKeys(err error, rec KeyRecord) error {
	r.mu.Lock()
	for _, c := range rec.credentials() {
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
	return withoutSecrets(err, secrets...)
}

func (r *rotator) storeError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.storeErr
}

// reached notes whether the store did what it was asked for, and tells of the
// first failure in a row.
func (r *rotator) reached(what string, err error) {
	if err != nil && (errors.Is(err, ErrNoCredential) || errors.Is(err, ErrConflictingWrite) || errors.Is(err, ErrReadOnlyStore)) {
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

// load reads the record; an empty store is seeded. A key that the store has
// refused comes before what the store holds. rejected is as for read.
func (r *rotator) load(ctx context.Context, rejected Credential) (KeyRecord, Revision, error) {
	rec, rev, err := r.read(ctx, rejected)
	r.mu.Lock()
	held := r.unsaved != nil
	rec = r.substitutedLocked(rec)
	r.mu.Unlock()
	if errors.Is(err, ErrNoCredential) && !held {
		rec, rev, err = r.plant(ctx, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.unsaved; u != nil && (err != nil || u.Generation > rec.Generation) {
		r.last = u.clone()
		return u.clone(), rev, nil
	}
	if err == nil && rec.Generation >= r.last.Generation { // a newer one may have been told of meanwhile
		r.last = rec
	}
	return rec, rev, err
}

// plant seeds an empty store. One that refuses the seed fails nobody: requests go
// on with it in memory, and nothing is rotated until it can be saved.
func (r *rotator) plant(ctx context.Context, empty error) (KeyRecord, Revision, error) {
	if r.seed == nil {
		return KeyRecord{}, "", fmt.Errorf("%w; seed it by WithCredential or the environment: %w", empty, r.noSeed)
	}
	c, err := r.seed.Credential(ctx)
	if err != nil {
		return KeyRecord{}, "", err
	}
	if err := r.core.checkKey(c); err != nil {
		return KeyRecord{}, "", err
	}
	rec := KeyRecord{Generation: 1, Current: StoredKey{
		Credential: c, ID: r.policy.KeyID, AgentID: r.policy.AgentID, Created: wallNow(), Expires: c.Expires(),
	}}
	rev, err := r.write(ctx, rec, "")
	switch {
	case errors.Is(err, ErrConflictingWrite):
		return r.read(ctx, Credential{})
	case errors.Is(err, ErrReadOnlyStore):
		r.mu.Lock()
		told := r.last.Current.Credential.Equal(c)
		r.mu.Unlock()
		if !told {
			r.core.storeFailed("save", err)
		}
	case err != nil:
		r.keep(rec)
	}
	return rec, rev, nil
}
