package agrenting

import "time"

// EventType is the kind of an [Event].
type EventType string

// The events of a credential.
const (
	// EventRenewed: a new generation is in use. Reason says why it was obtained.
	EventRenewed EventType = "renewed"
	// EventRejected: the credential in use is dead, or the platform has returned 401 to
	// it and does not say whether it is. The source is asked for another one. A credential
	// that cannot be replaced is reported once the platform calls it dead. Another 401 that
	// causes no renewal is not reported.
	EventRejected EventType = "rejected"
	// EventConfirmed: after a rejection, the source yielded the same credential again.
	EventConfirmed EventType = "confirmed"
	// EventRenewalFailed: Err is the cause. RetryAt is when the next attempt is due.
	EventRenewalFailed EventType = "renewal failed"
	// EventRotating: a rotation has reached the [Stage] in Reason. Reason is "waiting"
	// while another process holds the lease of the rotation, which ends at RetryAt
	// unless that process extends it.
	EventRotating EventType = "rotating"
	// EventRotated: the store has a new current key. Reason says how it was obtained.
	EventRotated EventType = "rotated"
	// EventRotationFailed: Err is a [*RotationError], and Reason is its stage.
	EventRotationFailed EventType = "rotation failed"
	// EventKeyOld: the key is older than the platform recommends (90 days), and no
	// schedule rotates it.
	EventKeyOld EventType = "key is old"
	// EventStoreFailed: a store could not be used, and the process continues with
	// what it has in memory. Reason is the operation that failed: "load", "save",
	// "watch", or "adopt" (putting the key of the store into use).
	EventStoreFailed EventType = "store failed"
)

// messages has the text of the log record of each event.
var messages = map[EventType]string{
	EventRenewed: "agrenting: credential renewed", EventRejected: "agrenting: credential rejected",
	EventConfirmed: "agrenting: credential confirmed", EventRenewalFailed: "agrenting: renewal failed",
	EventRotating: "agrenting: rotating key", EventRotated: "agrenting: key rotated",
	EventRotationFailed: "agrenting: key rotation failed", EventKeyOld: "agrenting: key is old",
	EventStoreFailed: "agrenting: store failed",
}

// Event reports a change of the credential, see [WithObserver]. Most programs only use
// Type and Err:
//
//	agrenting.WithObserver(func(e agrenting.Event) {
//		if e.Type == agrenting.EventRotationFailed {
//			alert(e.Err)
//		}
//	})
//
// An event contains no secret. Credentials appear as fingerprints, such as
// "sha256:1a2b3c4d5e". As JSON and in logs, it has the form that is described at [Status].
type Event struct {
	// Time is when it happened, on the local clock.
	Time time.Time
	// Type is the kind of event, such as [EventRenewed].
	Type EventType
	// Reason is "first", "early" (before the expiry), "expired", "rejected" (after
	// an EventRejected), "manual", "recheck" (a file or a source was read again),
	// "adopted" (a newer credential of another process was found), or "restored" (the
	// source has no other credential than a dead one, and the one before it is used
	// again). Events of rotations and stores have other reasons, see [EventType].
	Reason string
	// Generation counts the credentials that the client has used, from 1. In events of
	// a rotation and in [EventKeyOld], it is the generation of the key in the store.
	Generation uint64
	// Kind, Fingerprint, and Expires describe the credential in use after the event.
	// Previous is the fingerprint of the one before.
	Kind        Kind
	Fingerprint string
	Expires     time.Time
	Previous    string
	// Took is the duration of the renewal, for example 120 ms.
	Took time.Duration
	// Err is the cause of a failure, nil otherwise.
	Err error
	// RetryAt is when the next attempt is due; zero if there is none.
	RetryAt time.Time
}

// using describes the credential in use after the event.
func (e Event) using(generation uint64, cred Credential, expires time.Time) Event {
	e.Generation, e.Expires = generation, expires
	e.Kind, e.Fingerprint = cred.Kind(), cred.Fingerprint()
	return e
}
