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

// Caller is the credential that a call is made with, and the agent that it acts for.
// The agent is empty if it is the credential's own agent.
type Caller struct {
	Credential secret.Credential
	Agent      string
}

// Outcome is the result of a call to the platform.
type Outcome uint8

// The outcomes. Unknown is the zero value. It means that there was no response, or one
// without information, such as a gateway's page. The call may then have taken effect.
const (
	Unknown Outcome = iota
	// Done means that the platform did what it was asked to do. A call that issues a
	// key is Done if the response contains a key, whatever else it contains.
	Done
	// Truncated means success, but with a body that is empty or not in the platform's
	// format, so it may have been cut off.
	Truncated
	// Refused means that the platform refused the call and would refuse it again.
	Refused
	// Unauthorized means that the platform refused the call with a 401.
	Unauthorized
	// Failed means that the platform failed (5xx). It requires a different idempotency
	// key.
	Failed
	// Pending means that the platform is still working on an earlier call with this
	// idempotency key.
	Pending
	// Busy means that the platform may respond differently later (408, 409, 425, 429).
	Busy
)

// final reports whether the same call would have the same outcome again.
func (o Outcome) final() bool { return o == Done || o == Refused || o == Unauthorized }

// refused reports whether the platform has refused the call.
func (o Outcome) refused() bool { return o == Refused || o == Unauthorized }

// made reports whether a call that issues a key has issued one.
func (o Outcome) made() bool { return o == Done || o == Truncated }

// Answer is the result of a call, such as Answer{Outcome: Busy, RetryAfter:
// time.Second}. Most calls only set Outcome, and Err if the outcome is not Done.
type Answer struct {
	Outcome Outcome
	// Err says why the outcome is not Done. It is safe to show.
	Err error
	// RetryAfter is how long the platform asks not to be called.
	RetryAfter time.Duration
	// Missing is set if the platform does not know the resource that the path names.
	// NoRoute is set if it does not know the path itself.
	Missing, NoRoute bool
	// Denied is set if the outcome is Unknown and the status is that of a refusal,
	// which may not come from the platform.
	Denied bool
	// Key is the key in the response to a call that issues one. If none was found, it
	// is zero and Raw contains the response.
	Key IssuedKey
	Raw secret.Text
	// Sent is when the response was sent, by the platform's clock; zero if it is not
	// known.
	Sent time.Time
	// repeated is set if the outcome of an earlier attempt was not final.
	repeated bool
}

// IssuedKey is a key that the platform has issued, such as {Secret: "k1", ID:
// "key_1"}. Only the secret is always set.
type IssuedKey struct {
	Credential       secret.Credential
	ID, AgentID      string
	Created, Expires time.Time
}

// ListedKey is an entry in the list of an agent's keys.
type ListedKey struct {
	ID, Name         string
	Created, Revoked time.Time
	// Fits reports whether the part of the key that the platform shows matches a
	// secret.
	Fits func(secretText string) bool
}

// live returns the keys that are not revoked.
func live(keys []ListedKey) []ListedKey {
	return slices.DeleteFunc(slices.Clone(keys), func(k ListedKey) bool { return !k.Revoked.IsZero() })
}

// idOf returns the ID of the only key that fits, or "" if none or several do.
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

// Verdict is what the platform says about a credential when it is asked.
type Verdict uint8

// The verdicts.
const (
	Undecided Verdict = iota
	Alive
	Dead
)

// Platform makes the calls. Each method makes one attempt. This package repeats the
// calls that have no final outcome, with the same idempotency key.
type Platform interface {
	// Issue creates another key of an agent.
	Issue(ctx context.Context, by Caller, agent, name, idempotencyKey string) Answer
	// RotateInPlace replaces the calling key. The old key becomes invalid at once.
	RotateInPlace(ctx context.Context, by Caller, idempotencyKey string) Answer
	// List lists the keys of an agent, including revoked ones if the platform lists
	// them.
	List(ctx context.Context, by Caller, agent string) ([]ListedKey, Answer)
	// Revoke revokes a key by its ID.
	Revoke(ctx context.Context, by Caller, agent, id string) Answer
	// Verify asks whether the platform accepts a credential. The error says why
	// the verdict is not Alive.
	Verify(ctx context.Context, c secret.Credential) (Verdict, error)
	// OpenLifeline exchanges a key for a session, and returns the agent that the
	// session belongs to.
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
	// Left returns how long the lease of e may still last. Unchanged returns how long
	// this process has seen e unchanged.
	Left(e record.Entry[record.Key]) time.Duration
	Unchanged(e record.Entry[record.Key]) time.Duration
	// Notify calls changed after each change of the record, until stop is called. stop
	// is nil if the store does not support this.
	Notify(changed func()) (stop func())
	// Watched reports whether the record can be watched. Follow yields the record now
	// and after each change.
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
	// Admit returns an error for a credential that this client must not send.
	Admit(c secret.Credential) error
}

// Generation is a credential that requests use or have used.
type Generation struct {
	// Credential is what requests carry: the key, or a session.
	Credential secret.Credential
	// Handle identifies the generation; nil if there is none.
	Handle any
}

// IsZero reports whether there is no generation.
func (g Generation) IsZero() bool { return g.Handle == nil }

// Handover controls which credential requests use.
type Handover interface {
	// InUse returns the generation that new requests use; zero if there is none.
	InUse() Generation
	// Serves reports whether requests use a key or a session that was obtained with
	// it, or will use it when the renewal under way has ended.
	Serves(key secret.Credential) bool
	// Adopt makes requests use a key from now on.
	Adopt(ctx context.Context, key record.StoredKey, reason renew.Reason) error
	// Hold makes new requests wait. Release lets them continue: if g was replaced,
	// with the credential that is then in use. The returned channels are closed when
	// the requests on the wire have ended.
	Hold(g Generation) (drained []<-chan struct{})
	Release(g Generation, replaced bool)
	// Retire closes a generation that is not in use any more. Late requests use the
	// newer one.
	Retire(g Generation) (drained <-chan struct{})
}

// Report receives events. Its methods must not block.
type Report interface {
	Stage(rec record.Key, stage string)
	// Waiting reports that another process is at work, and how long this process may
	// still wait for it.
	Waiting(rec record.Key, left time.Duration)
	Rotated(rec record.Key, how string)
	Failed(rec record.Key, err error)
	// Old reports a key that is older than the platform recommends, if nothing will
	// rotate it.
	Old(rec record.Key)
	// StoreFailed reports that the store could not do what it was asked to do.
	StoreFailed(what string, err error)
}
