package rotation

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// Caller is the credential that a call is made with, and the agent that it acts
// for; empty for the credential's own.
type Caller struct {
	Credential secret.Credential
	Agent      string
}

// Outcome is what a call of the platform has come to.
type Outcome uint8

// The outcomes. Unknown is the zero value: there was no response, or one that
// says nothing, such as a gateway's page, so the call may have taken effect.
const (
	Unknown Outcome = iota
	// Done: the platform did what it was asked for. A call that issues a key is
	// Done if there is a key in the response, whatever else the response says.
	Done
	// Truncated: a success whose body is empty or not in the platform's format, so
	// it may have been cut off.
	Truncated
	// Refused: the platform said no, and would say so again.
	Refused
	// Unauthorized: Refused with a 401.
	Unauthorized
	// Failed: the platform failed (5xx). It wants another idempotency key.
	Failed
	// Pending: the platform is at work on an earlier call with this idempotency
	// key.
	Pending
	// Busy: the platform would answer differently later (408, 409, 425, 429).
	Busy
)

// final reports whether the same call would have the same outcome again.
func (o Outcome) final() bool { return o == Done || o == Refused || o == Unauthorized }

// refused reports whether the platform has said no.
func (o Outcome) refused() bool { return o == Refused || o == Unauthorized }

// made reports whether a call that issues a key has issued one.
func (o Outcome) made() bool { return o == Done || o == Truncated }

// Answer is what came of a call.
type Answer struct {
	Outcome Outcome
	// Err says why the outcome is not Done. It is safe to show.
	Err error
	// RetryAfter is how long the platform wants to be left alone.
	RetryAfter time.Duration
	// Missing is set if the platform does not know what the path names, NoRoute
	// if it does not know the path itself.
	Missing, NoRoute bool
	// Denied is set if the outcome is Unknown and the status is that of a refusal,
	// which may not be the platform's.
	Denied bool
	// Key is the key in the response to a call that issues one; zero if none was
	// found. Raw is then the response.
	Key IssuedKey
	Raw secret.Text
	// Sent is when the response was sent, by the platform's clock; zero if not
	// known.
	Sent time.Time
	// repeated is set if the outcome of an attempt before was not final.
	repeated bool
}

// IssuedKey is a key that the platform has issued.
type IssuedKey struct {
	Credential       secret.Credential
	ID, AgentID      string
	Created, Expires time.Time
}

// ListedKey is an entry of the list of an agent's keys.
type ListedKey struct {
	ID, Name         string
	Created, Revoked time.Time
	// Fits reports whether what the platform shows of the key agrees with a
	// secret.
	Fits func(secretText string) bool
}

// live returns the keys that are not revoked.
func live(keys []ListedKey) []ListedKey {
	return slices.DeleteFunc(slices.Clone(keys), func(k ListedKey) bool { return !k.Revoked.IsZero() })
}

// idOf returns the ID of the one key that fits, and "" if several do.
func idOf(keys []ListedKey, c secret.Credential) string {
	id := ""
	for _, k := range keys {
		if !k.Fits(c.Reveal()) {
			continue
		}
		if id != "" {
			return ""
		}
		id = k.ID
	}
	return id
}

// Verdict is what the platform says about a credential when asked.
type Verdict uint8

// The verdicts.
const (
	Undecided Verdict = iota
	Alive
	Dead
)

// Platform makes the calls. Each is one attempt: rotation repeats those whose
// outcome is not final, under the same idempotency key.
type Platform interface {
	// Issue creates another key of an agent.
	Issue(ctx context.Context, by Caller, agent, name, idempotencyKey string) Answer
	// RotateInPlace replaces the calling key: the old one dies at once.
	RotateInPlace(ctx context.Context, by Caller, idempotencyKey string) Answer
	// List lists the keys of an agent, revoked ones too if the platform does.
	List(ctx context.Context, by Caller, agent string) ([]ListedKey, Answer)
	// Revoke revokes a key by its ID.
	Revoke(ctx context.Context, by Caller, agent, id string) Answer
	// Verify asks whether the platform accepts a credential. The error says why
	// the verdict is not Alive.
	Verify(ctx context.Context, c secret.Credential) (Verdict, error)
	// OpenLifeline exchanges a key for a session, and returns whose it is.
	OpenLifeline(ctx context.Context, key secret.Credential) (session secret.Credential, agent string, a Answer)
}

// Store keeps the record, with its lease. A [record.Slot] of keys is one.
type Store interface {
	// Load returns the record. Its error matches [record.ErrNoRecord] if there is
	// none.
	Load(ctx context.Context) (record.Entry[record.Key], error)
	// Save replaces the record if it still has the revision of e.
	Save(ctx context.Context, e record.Entry[record.Key]) (record.Entry[record.Key], error)
	// Acquire takes the lease by replacing e with a record that has body.
	Acquire(ctx context.Context, e record.Entry[record.Key], body record.Key, terms record.Terms) (*record.Held[record.Key], error)
	// Left returns how long the lease of e may still last, and Unchanged for how
	// long this process has seen e unchanged.
	Left(e record.Entry[record.Key]) time.Duration
	Unchanged(e record.Entry[record.Key]) time.Duration
	// Notify calls changed after each change of the record, until stop is called. stop
	// is nil if the store cannot do this.
	Notify(changed func()) (stop func())
	// Watched reports whether the record can be watched. Follow yields it, and again
	// after changes.
	Watched(ctx context.Context) bool
	Follow(ctx context.Context) iter.Seq2[record.Entry[record.Key], error]
}

// Keys yields keys that come from outside the store.
type Keys interface {
	// Initial returns the key that fills an empty store.
	Initial(ctx context.Context) (secret.Credential, error)
	// Owner returns the owner credential. HasOwner reports whether there is one.
	Owner(ctx context.Context) (secret.Credential, error)
	HasOwner() bool
	HasInitial() bool
	// Admit refuses a credential that this client must not send.
	Admit(c secret.Credential) error
}

// Generation is a credential that requests use or used.
type Generation struct {
	// Credential is what requests carry: the key, or a session.
	Credential secret.Credential
	// Handle identifies the generation; nil if there is none.
	Handle any
}

// IsZero reports whether there is no generation.
func (g Generation) IsZero() bool { return g.Handle == nil }

// Handover is what requests use.
type Handover interface {
	// InUse returns the generation that new requests use; zero if there is none.
	InUse() Generation
	// Serves reports whether requests use a key, or a session that was obtained
	// with it, or will when the renewal under way has ended.
	Serves(key secret.Credential) bool
	// Adopt has requests use a key from now on.
	Adopt(ctx context.Context, key record.StoredKey, reason renew.Reason) error
	// Hold keeps new requests waiting, and Release lets them continue: with what
	// is in use by then if g was replaced. The channels are closed when requests
	// on the wire are through.
	Hold(g Generation) (drained []<-chan struct{})
	Release(g Generation, replaced bool)
	// Retire closes a generation that is not in use any more. Requests that come
	// late use the newer one.
	Retire(g Generation) (drained <-chan struct{})
}

// Report is told what happens. Its methods must not block.
type Report interface {
	Stage(rec record.Key, stage string)
	// Waiting reports that another process is at work, and for how long it may
	// still be waited for.
	Waiting(rec record.Key, left time.Duration)
	Rotated(rec record.Key, how string)
	Failed(rec record.Key, err error)
	// Old reports a key that is older than the platform recommends while nothing
	// is going to rotate it.
	Old(rec record.Key)
	// StoreFailed reports that the store could not do what it was asked for.
	StoreFailed(what string, err error)
}
