package agrenting

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// keep holds on to a key that the store has refused, and goes on trying to
// save it: it exists nowhere else.
func (r *rotator) keep(rec record.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := rec.Clone()
	r.unsaved = &held
	if r.saving || r.closed {
		return // close saves at last
	}
	r.saving = true
	r.wg.Go(func() {
		for n := 1; !r.saved(r.ctx); n++ {
			if renew.Sleep(r.ctx, renew.Doubled(time.Second, time.Minute, n)) != nil {
				return
			}
		}
	})
}

// saved tries to save what the store has refused, and reports whether nothing
// is left to be saved.
func (r *rotator) saved(ctx context.Context) bool {
	if r.trySave(ctx) != nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.saving = r.unsaved != nil // another one may have come meanwhile
	return !r.saving
}

// trySave saves what the store has refused, unless the store has its like.
func (r *rotator) trySave(ctx context.Context) error {
	r.mu.Lock()
	u := r.unsaved
	r.mu.Unlock()
	if u == nil {
		return nil
	}
	e, err := r.read(ctx, secret.Credential{})
	if err != nil && !errors.Is(err, ErrNoRecord) {
		return err
	}
	if e.Body.Generation < u.Generation {
		// The intent stays if something is left to be revoked.
		if err := r.write(ctx, e, u.Clone()); err != nil {
			return err
		}
		r.core.emitRotation(slog.LevelInfo, EventRotated, "the key that the store had refused is saved", *u, nil)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unsaved == u {
		r.unsaved = nil
	}
	return nil
}

// saveAtLast is the last attempt, when the client is closed.
func (r *rotator) saveAtLast() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := r.trySave(ctx)
	if err == nil || r.namedBySeed(ctx) {
		return nil
	}
	e := &RotationError{
		Stage: StagePersist, Err: err,
		State:  "the new key is live and was never saved",
		Advice: "save what NewCredential returns before the process ends: the platform does not show it again",
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.unsaved; u != nil {
		e.new, e.Strategy = Credential{u.Current.Credential}, InPlace
	}
	return e
}

// namedBySeed reports whether what was never saved is the seed: the next start has
// it, too.
func (r *rotator) namedBySeed(ctx context.Context) bool {
	r.mu.Lock()
	u := r.unsaved
	r.mu.Unlock()
	if u == nil || r.seed == nil || u.Generation > 1 {
		return false
	}
	c, err := r.seed.Credential(ctx)
	return err == nil && c.c.Equal(u.Current.Credential)
}
