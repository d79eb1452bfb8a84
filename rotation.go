package agrenting

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/rotation"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// Strategy is a way to replace a key.
type Strategy uint8

// The strategies. With the zero value, the SDK chooses: Overlap if the owner or the key
// itself may create credentials and the ID of the old key is known or can be found,
// InPlace otherwise.
const (
	// Overlap creates a second key, verifies it, makes requests use it, and revokes
	// the first when no request uses it any more. Requests never wait.
	Overlap Strategy = iota + 1
	// InPlace calls the platform's rotate endpoint, which revokes the old key
	// the moment it issues the new one. Requests wait from before the call until
	// the new key is saved and the platform knows it, which the VerifyTimeout
	// bounds.
	InPlace
)

// String returns the strategy in lower case.
func (s Strategy) String() string { return rotation.Strategy(s).String() }

// Stage is a step of a rotation. The stages in their order are "prepare" (the intent is
// saved), "issue" (the platform is asked for the new key), "persist" (the new key is
// saved), "verify" (the new key is tried), "promote" (the new key becomes the current
// one), "revoke" (requests with the old key end, and it is revoked), and "forget" (the
// intent is deleted).
type Stage string

// The stages that make a difference to a program.
const (
	// StagePrepare: nothing has happened on the platform.
	StagePrepare Stage = "prepare"
	// StageIssue: the platform was asked for the new key. In place, the old key may be
	// dead.
	StageIssue Stage = "issue"
	// StageRevoke: the new key is in use, and the old one may be live.
	StageRevoke Stage = "revoke"
	// StageForget: only the intent is left to delete, or the rotation is undone.
	StageForget Stage = "forget"
)

// Defaults of a RotationPolicy.
const (
	// defaultEvery is what the platform recommends (platform documentation,
	// "Authentication": every 90 days).
	defaultEvery = 90 * 24 * time.Hour

	defaultDrain       = 10 * time.Second
	defaultLease       = 20 * time.Second
	defaultCallTimeout = 8 * time.Second
	defaultVerify      = 15 * time.Second
	defaultGrace       = 3 * time.Second
	defaultRetryEvery  = time.Minute
	maxRetryEvery      = 6 * time.Hour
	defaultMaxAttempts = 5
)

// RotationPolicy configures how and when keys are rotated. A zero field means its
// default. Most programs set no field, or only Owner and AgentID:
//
//	agrenting.WithRotation(agrenting.RotationPolicy{
//		Owner:   agrenting.FileSource("/run/secrets/agrenting-owner"),
//		AgentID: "7f9c24e5-2b1a-4c63-9d1e-0a4f3b6d8c11",
//	})
type RotationPolicy struct {
	// Store keeps the key, instead of the store of [WithStore]. Set it if more processes
	// may share the sessions than may share the key. Most programs leave it nil.
	Store Store
	// Strategy is Overlap or InPlace. With zero, the SDK chooses, see [Strategy].
	Strategy Strategy
	// Every is the age at which a key is due, for example 30 * 24 * time.Hour. The
	// default is 90 days. A negative value means only on demand. Each key is due up to a
	// tenth of that time earlier, depending on a hash of its fingerprint, so that not all
	// keys are due at the same time.
	Every time.Duration
	// AgentID is the agent that the key belongs to. If it is empty, the SDK uses
	// the agent of the stored record, or the client's default agent. Overlap and an
	// Owner need one of them. A rotation in place that opens a session learns the
	// ID for later rotations.
	AgentID string
	// KeyID is the platform's ID of the initial key, the one that fills the store. It
	// is needed to revoke that key. Empty: the SDK searches the list of keys, and if
	// the match is not certain, the first rotation is in place.
	KeyID string
	// Owner yields the owner credential, such as a user token, which may create and
	// revoke keys of the agent. It is sent with the agent's ID as X-Agent-ID.
	// Without an Owner, the key itself creates and revokes keys.
	Owner CredentialSource
	// DrainTimeout limits the wait for requests on the wire; default 10 s. Requests that
	// take longer are resent after their 401.
	DrainTimeout time.Duration
	// Grace is how long a replaced key remains valid, so that other processes can adopt
	// the new one (Overlap). The default is 3 s, and none for a store in memory. A
	// negative value means none.
	Grace time.Duration
	// VerifyTimeout limits how long a new key may be unknown to parts of the platform;
	// default 15 s. After that, the new key is revoked (Overlap), or used anyway, because
	// no other key is left (InPlace).
	VerifyTimeout time.Duration
	// CallTimeout limits one call of the platform and one of the store; default 8 s.
	// Store loads that a request depends on may take up to 30 s: the first one, and
	// the one for the successor of a rejected key.
	CallTimeout time.Duration
	// Lease is how long the lease of a rotation lasts if it is not extended, and so
	// how long other processes wait for a process that died; default 20 s. Smaller values
	// are raised to twice CallTimeout. The holder extends the lease every quarter of Lease.
	// Each process measures for how long the record has not changed, so clocks need not
	// agree.
	Lease time.Duration
	// RetryEvery is the pause after a failure; default 1 min. It doubles with each
	// failure, up to 6 h.
	RetryEvery time.Duration
	// MaxAttempts limits how often an unfinished rotation is resumed before a new one
	// replaces it; default 5.
	MaxAttempts int
}

func (p RotationPolicy) validate() error {
	if p.Strategy > InPlace {
		return optionError("RotationPolicy", "the strategy is neither Overlap nor InPlace")
	}
	for _, d := range []time.Duration{p.DrainTimeout, p.VerifyTimeout, p.CallTimeout, p.Lease, p.RetryEvery} {
		if d < 0 {
			return optionError("RotationPolicy", "a duration is negative; 0 means its default")
		}
	}
	if p.MaxAttempts < 0 {
		return optionError("RotationPolicy", "MaxAttempts is negative")
	}
	if p.AgentID != "" {
		return validateAgentID(p.AgentID)
	}
	return nil
}

func (p RotationPolicy) withDefaults(store Store) RotationPolicy {
	if p.Grace == 0 && volatile(store) {
		p.Grace = -1
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&p.Every, defaultEvery},
		{&p.DrainTimeout, defaultDrain},
		{&p.Grace, defaultGrace},
		{&p.VerifyTimeout, defaultVerify},
		{&p.CallTimeout, defaultCallTimeout},
		{&p.Lease, defaultLease},
		{&p.RetryEvery, defaultRetryEvery},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	p.Grace = max(p.Grace, 0)
	p.Lease = max(p.Lease, 2*p.CallTimeout)
	if p.MaxAttempts == 0 {
		p.MaxAttempts = defaultMaxAttempts
	}
	return p
}

// WithRotation rotates the key by age, before it expires, or on demand. It needs
// [WithStore] or RotationPolicy.Store, since the platform shows a new key only
// once. A user token is refused with [ErrInvalidCredential], by [New] or by the first
// request.
func WithRotation(p RotationPolicy) Option {
	return func(cfg *config) error {
		if err := p.validate(); err != nil {
			return fmt.Errorf("WithRotation: %w", err)
		}
		cfg.rotation = &p
		return nil
	}
}

// Rotation describes a completed rotation, see [Client.Rotate]. Most programs only log it.
type Rotation struct {
	// From and To are the fingerprints of the old and the new key, such as
	// "sha256:1a2b3c4d5e".
	From, To string
	// Generation is the generation of the new key in the store, for example 2 after the
	// first rotation.
	Generation uint64
	// Strategy is the one that was used.
	Strategy Strategy
	// Took is the duration of the rotation.
	Took time.Duration
	// Recovered is set if an earlier attempt, perhaps of another process, had begun the
	// rotation and not finished it. Adopted is set if another process made the rotation.
	Recovered, Adopted bool
}

// Rotate replaces the key now and waits until the rotation ends. Concurrent requests are
// not affected. If another process is rotating the key, Rotate waits for that rotation
// and adopts its key. ctx limits only the wait: a rotation that has begun is finished.
//
// A failure is a [*RotationError], which says what happened, what is safe, and what to
// do. Without [WithStore], or with a store that cannot be written, the error matches
// [ErrReadOnlyStore], and nothing has happened.
func (c *Client) Rotate(ctx context.Context) (*Rotation, error) {
	k := c.core.stored
	if k == nil {
		return nil, fmt.Errorf("%w: the platform shows a new key only once, so rotation needs a place to keep it: "+
			"set WithStore, for example with FileStore", ErrReadOnlyStore)
	}
	r, err := k.manager.Rotate(ctx)
	if err != nil {
		return nil, publicRotation(err)
	}
	return &Rotation{
		From: r.From, To: r.To, Generation: r.Generation, Strategy: Strategy(r.Strategy), Took: r.Took,
		Recovered: r.Recovered, Adopted: r.Adopted,
	}, nil
}

// RotationError describes a failed rotation: where it failed, which key is valid, and what
// to do. Most programs log it, and save what NewCredential returns.
//
// The text contains no secret. If the platform's response may contain the new key, the text has
// only its status and code, and its request ID if that cannot be a secret.
type RotationError struct {
	// Stage is where the rotation failed, such as [StageRevoke].
	Stage Stage
	// Strategy is the one that was used.
	Strategy Strategy
	// State describes what is known, for example "The key in use is live, and the store does
	// not have it".
	State string
	// Advice says what to do, for example "Save what NewCredential returns before the process
	// ends".
	Advice string
	// Err is the cause.
	Err error

	raw secret.Text
	new Credential
}

// Error implements error.
func (e *RotationError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "agrenting: rotation (%s) failed at stage %s", e.Strategy, e.Stage)
	if e.Err != nil {
		b.WriteString(": " + strings.TrimPrefix(e.Err.Error(), "agrenting: "))
	}
	if e.State != "" {
		b.WriteString(". " + e.State)
	}
	if e.Advice != "" {
		b.WriteString(". " + e.Advice)
	}
	return secret.Line(b.String())
}

// Unwrap returns the cause.
func (e *RotationError) Unwrap() error { return e.Err }

// NewCredential returns the new key if a rotation in place obtained one that could not be
// saved. The process uses it and keeps trying to save it. Save it elsewhere, because it would
// be lost with the process. ok is false otherwise: with Overlap, the old key stays in use, and
// the next attempt gets the new key again.
func (e *RotationError) NewCredential() (c Credential, ok bool) { return e.new, !e.new.IsZero() }

// RawResponse returns the platform's response if it reports a new key and the SDK found none
// in it: the key may have a name that the SDK does not know. The response is a secret.
// RawResponse returns nil otherwise.
func (e *RotationError) RawResponse() []byte {
	if e.raw.IsZero() {
		return nil
	}
	return []byte(e.raw.Reveal())
}

// publicRotation turns an error of internal/rotation into what callers match: a
// *RotationError, and the sentinels.
func publicRotation(err error) error {
	switch e := err.(type) { //nolint:errorlint // only the outermost error is replaced
	case nil:
		return nil
	case *rotation.Error:
		return &RotationError{
			Stage: Stage(e.Stage), Strategy: Strategy(e.Strategy), State: e.State, Advice: e.Advice,
			Err: publicRotation(e.Err), raw: e.Raw, new: Credential{e.New},
		}
	case *rotation.MismatchError:
		return &RecordMismatchError{Record: record.KeyName, Field: "agent", Stored: e.Stored, Configured: e.Configured}
	case *rotation.PausedError:
		return &pausedError{at: e.At, err: publicRotation(e.Err)}
	}
	if err == rotation.ErrClosed { //nolint:errorlint // as above
		return ErrClosed
	}
	for inner, kind := range map[error]error{
		rotation.ErrNotRotatable: ErrInvalidCredential, rotation.ErrNotKnown: ErrInvalidOption, rotation.ErrNoKeyFound: ErrMalformedResponse,
	} {
		if errors.Is(err, inner) && !errors.Is(err, kind) {
			return &alsoError{err: err, kind: kind}
		}
	}
	return err
}

// alsoError is an error that matches a sentinel, too.
type alsoError struct{ err, kind error }

func (e *alsoError) Error() string        { return e.err.Error() }
func (e *alsoError) Is(target error) bool { return target == e.kind }
func (e *alsoError) Unwrap() error        { return e.err }

// internal is the policy of internal/rotation. agent is the client's default.
func (p RotationPolicy) internal(agent string) rotation.Policy {
	return rotation.Policy{
		Strategy: rotation.Strategy(p.Strategy), Every: p.Every, AgentID: p.AgentID, KeyID: p.KeyID,
		DrainTimeout: p.DrainTimeout, Grace: p.Grace, VerifyTimeout: p.VerifyTimeout, CallTimeout: p.CallTimeout,
		Lease: p.Lease, RetryEvery: p.RetryEvery, MaxAttempts: p.MaxAttempts, DefaultAgent: agent,
	}
}
