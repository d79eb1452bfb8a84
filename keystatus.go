package agrenting

import "time"

// KeyStatus describes the API key that a store keeps, and its rotation, as far as this
// process has read the record. It is a part of [Status]. Most programs only use Overdue and
// LastError, for an alert.
type KeyStatus struct {
	// Fingerprint identifies the key, for example "sha256:1a2b3c4d5e".
	Fingerprint string
	// Generation counts the keys that were in use, from 1, which is the initial key.
	Generation uint64
	// Created is when the key was issued, or, if that is not known, stored. Age is the
	// time since then, for example 30 days. Expires is zero for keys that do not expire.
	Created, Expires time.Time
	Age              time.Duration
	// Due is when the key should be rotated; zero without [WithRotation]. Overdue is set
	// if that time has passed, and without [WithRotation] if the key is older than the
	// platform recommends (90 days). While the first attempt runs, it is not set.
	Due     time.Time
	Overdue bool
	// Rotating is set while this process rotates the key or waits for a process that does.
	Rotating bool
	// LastRotation is when the last rotation ended, in this process or another one.
	// LastError is the [*RotationError] of a failed rotation, nil otherwise. Failures counts
	// failures in a row, and RetryAt is when the next attempt is due.
	LastRotation time.Time
	LastError    error
	Failures     int
	RetryAt      time.Time
}
