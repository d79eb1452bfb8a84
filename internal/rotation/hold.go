package rotation

import (
	"context"
	"errors"
	"fmt"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// hold is the record while this process works on it, and the lease on that record.
type hold struct {
	ledger *ledger
	tasks  *tasks
	policy *Policy

	entry entry // the record at the beginning of the work, or the one that was released last
	rec   record.Key
	lease *record.Held[record.Key] // nil before it is acquired, and after it is released
	keep  func()                   // ends the extension of the lease
}

// save writes the record. It also extends the lease, acquires it, or releases it together
// with the intent. It continues after the end of ctx, because what is known must not be
// lost when the client is closed.
func (h *hold) save(ctx context.Context, rec record.Key) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.policy.CallTimeout)
	defer cancel()
	err := h.ledger.redact(h.put(ctx, rec), rec)
	h.ledger.reached("save", err)
	if err != nil {
		return err
	}
	h.rec = rec
	h.ledger.note(h.current())
	return nil
}

func (h *hold) put(ctx context.Context, rec record.Key) error {
	switch {
	case h.lease == nil && rec.Intent == nil:
		return h.ledger.write(ctx, h.entry, rec)
	case h.lease == nil:
		return h.acquire(ctx, rec)
	case rec.Intent == nil:
		return h.release(ctx, rec)
	default:
		return h.lease.Save(ctx, rec)
	}
}

// acquire takes the lease. A slow store may take until ctx ends.
func (h *hold) acquire(ctx context.Context, rec record.Key) error {
	terms := record.Terms{Holder: h.ledger.holder, Duration: h.policy.Lease, Every: h.policy.Lease / 4}
	for {
		lease, err := h.ledger.store.Acquire(ctx, h.entry, rec, terms)
		switch {
		case err == nil:
			h.lease, h.keep = lease, lease.Keep(h.tasks.ctx) //nolint:contextcheck // the lease lasts longer than this call
			return nil
		case errors.Is(err, record.ErrConflict):
			return fmt.Errorf("%w: %w", record.ErrLeaseLost, err)
		case !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
			return err
		}
	}
}

// current returns the stored record.
func (h *hold) current() entry {
	if h.lease != nil {
		return h.lease.Entry()
	}
	e := h.entry
	e.Body = h.rec
	return e
}

// release releases the lease with a last write.
func (h *hold) release(ctx context.Context, rec record.Key) error {
	h.keep()
	if err := h.lease.Release(ctx, rec); err != nil {
		h.keep = h.lease.Keep(h.tasks.ctx) //nolint:contextcheck // as above
		return err
	}
	h.entry, h.lease = h.lease.Entry(), nil
	return nil
}

// letGo releases the lease, so that other processes need not wait for its end.
func (h *hold) letGo(ctx context.Context) {
	if h.lease == nil {
		return
	}
	h.keep()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.policy.CallTimeout)
	defer cancel()
	if h.lease.Release(ctx, h.rec) == nil {
		h.ledger.note(h.lease.Entry())
	}
	h.lease = nil // or it ends by itself
}

// retake acquires the lease again, on the record that is stored now.
func (h *hold) retake(ctx context.Context, e entry) error {
	h.entry, h.rec = e, e.Body
	return h.save(ctx, e.Body.Clone())
}

// changed reports whether another process has written the record since it was loaded.
func (h *hold) changed(ctx context.Context) bool {
	e, err := h.ledger.load(ctx, secret.Credential{})
	return err == nil && e.Revision != h.entry.Revision
}

// regain prepares to acquire the lease again if no other process has it: the store was
// rolled back, and the newest record is the one that this process works on.
func (h *hold) regain(ctx context.Context) bool {
	e, err := h.ledger.load(context.WithoutCancel(ctx), secret.Credential{})
	mine, theirs := h.rec.Intent, e.Body.Intent
	if err != nil || mine == nil || theirs == nil || theirs.Key != mine.Key || theirs.Stage != mine.Stage ||
		!e.Body.Pending.Credential.Equal(h.rec.Pending.Credential) || (e.Lease.Holder != h.ledger.holder && e.Lease.Holder != "") {
		return false
	}
	h.stop()
	h.entry, h.lease = e, nil
	return true
}

// stop ends the extension of the lease.
func (h *hold) stop() {
	if h.lease != nil {
		h.keep()
	}
}

// allowed returns nil if the platform may be called, because the lease is held or is not
// needed.
func (h *hold) allowed(ctx context.Context) error {
	if h.lease == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.policy.CallTimeout)
	defer cancel()
	err := h.ledger.redact(h.lease.Check(ctx), h.rec)
	if err != nil && !errors.Is(err, record.ErrLeaseLost) {
		return fmt.Errorf("%w: %w", errUnreachable, err)
	}
	return err
}

// errUnreachable means that the lease may have ended, because the store could not be
// reached for too long.
var errUnreachable = errors.New("agrenting: the store could not be reached for as long as the right to rotate lasts")

// fence makes sure that the lease is still held. It does so by extending the lease.
func (h *hold) fence(ctx context.Context) error { return h.save(ctx, h.rec.Clone()) }
