package rotation

import (
	"context"
	"sync"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
)

// adopter makes requests use the keys of records.
type adopter struct {
	ledger   *ledger
	handover Handover
	report   Report

	mu       sync.Mutex
	outdated Generation // in use since before a key that requests could not change to
}

// takeUp adopts the key of a record that another process has written, if it
// replaces the current key.
func (a *adopter) takeUp(ctx context.Context, rec record.Key) error {
	if a.handover.InUse().IsZero() || rec.Current.IsZero() || replaced(rec) ||
		a.handover.Serves(rec.Current.Credential) {
		return nil
	}
	return a.change(ctx, rec.Current, renew.Adopted)
}

// change makes requests use a key from now on.
func (a *adopter) change(ctx context.Context, k record.StoredKey, reason renew.Reason) error {
	err := a.handover.Adopt(ctx, k, reason)
	if err == nil && !a.handover.Serves(k.Credential) {
		// A renewal that was under way was joined. It had begun with the previous
		// key.
		err = a.handover.Adopt(ctx, k, reason)
	}
	return err
}

// changeOver makes requests use the current key of a record, and reports whether
// they do. A session that cannot be replaced now continues to be used.
func (a *adopter) changeOver(ctx context.Context, rec record.Key) bool {
	before := a.handover.InUse()
	err := a.change(ctx, rec.Current, renew.Manual)
	if err != nil && ctx.Err() == nil {
		a.report.StoreFailed("adopt", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.outdated = Generation{}
	if err != nil {
		a.outdated = before
	}
	return err == nil
}

// stillOn reports whether requests use a credential that the previous key
// authenticates.
func (a *adopter) stillOn(previous record.StoredKey) bool {
	g := a.handover.InUse()
	a.mu.Lock()
	defer a.mu.Unlock()
	return !g.IsZero() && (g.Handle == a.outdated.Handle || g.Credential.Equal(previous.Credential))
}
