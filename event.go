package agrenting

import (
	"log/slog"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// EventType tells events apart.
type EventType string

// What happens to a credential.
const (
	// EventRenewed: a new generation is in use; Reason says why it was made.
	EventRenewed EventType = "renewed"
	// EventRejected: the platform answered 401 to the credential in use.
	EventRejected EventType = "rejected"
	// EventConfirmed: after a rejection the source gave the same credential
	// again, so the 401 was passed on to the caller.
	EventConfirmed EventType = "confirmed"
	// EventRenewalFailed: Err says why, RetryAt when the next attempt is due.
	EventRenewalFailed EventType = "renewal failed"
	// EventRotating: a rotation has come to the stage in Reason. It is "waiting"
	// while another process holds the lease of a rotation, which ends at RetryAt
	// unless that process extends it.
	EventRotating EventType = "rotating"
	// EventRotated: the store has a new current key; Reason says how.
	EventRotated EventType = "rotated"
	// EventRotationFailed: Err is a [*RotationError], Reason its stage.
	EventRotationFailed EventType = "rotation failed"
	// EventKeyOld: the key is older than the platform recommends and nobody is
	// going to rotate it.
	EventKeyOld EventType = "key is old"
	// EventStoreFailed: a store could not be used, and the process goes on with
	// what it has in memory. Reason says what failed: "lock", "load", "save",
	// "watch" (to be told of changes), or "adopt" (to change over to the key
	// that the store has).
	EventStoreFailed EventType = "store failed"
)

// Event reports something that happened to the credential, see [WithObserver].
// It contains no secret: credentials appear as fingerprints.
type Event struct {
	Time time.Time
	Type EventType
	// Reason is "first", "early" (ahead of the expiry), "expired", "rejected"
	// (after a 401), "manual", "recheck" (a file or a source was looked at
	// again) or "adopted" (somebody else's newer credential was found). Events of
	// rotations and stores have others, see [EventType].
	Reason string
	// Generation counts the credentials that the client has used, from 1. With
	// events of a rotation, and [EventKeyOld], it is that of the key in the store.
	Generation uint64
	// Kind, Fingerprint and Expires describe the credential in use after the
	// event; Previous is the fingerprint of the one before.
	Kind        Kind
	Fingerprint string
	Expires     time.Time
	Previous    string
	// Took is how long the renewal took.
	Took    time.Duration
	Err     error
	RetryAt time.Time
}

// using describes the credential in use after the event.
func (e Event) using(generation uint64, cred Credential, expires time.Time) Event {
	e.Generation, e.Expires = generation, expires
	e.Kind, e.Fingerprint = cred.Kind(), cred.Fingerprint()
	return e
}

// LogValue implements [slog.LogValuer].
func (e Event) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("type", string(e.Type)), slog.String("reason", e.Reason)}
	if e.Generation > 0 {
		attrs = append(attrs, slog.Uint64("generation", e.Generation), slog.String("credential", e.Fingerprint))
	}
	if e.Previous != "" {
		attrs = append(attrs, slog.String("previous", e.Previous))
	}
	if !e.Expires.IsZero() {
		attrs = append(attrs, slog.Time("expires", e.Expires))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", secret.Clean(secret.WithoutQueries(e.Err.Error()))))
	}
	if !e.RetryAt.IsZero() {
		attrs = append(attrs, slog.Time("retry_at", e.RetryAt))
	}
	return slog.GroupValue(attrs...)
}
