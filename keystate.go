package agrenting

import (
	"context"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/rotation"
)

// KeyState describes the key that a store keeps, see [LoadKeyState]. It is for diagnosis:
// most programs use [Client.Status] instead. For example, Generation is 2 and Unfinished is
// nil after the first rotation.
type KeyState struct {
	// Credential is the key in use.
	Credential Credential
	// KeyID is the platform's ID of the key, which is needed to revoke it. AgentID
	// is the agent that the key belongs to. Each is empty if it is not known.
	KeyID, AgentID string
	// Generation counts the keys that were in use, from 1.
	Generation uint64
	// Created is when the key was issued, or, if that is not known, stored.
	// Expires is zero for keys that do not expire.
	Created, Expires time.Time
	// Unfinished describes a rotation that has begun and not ended; nil if there
	// is none.
	Unfinished *UnfinishedRotation
}

// UnfinishedRotation describes a rotation that is under way, or that was interrupted and
// will be resumed. For example, after a crash between the issue of the new key and its first
// use, Stage is "verify" and Strategy is Overlap. Most programs only show it to operators.
type UnfinishedRotation struct {
	// Strategy and Stage are how the rotation is made and how far it is.
	Strategy Strategy
	Stage    Stage
	// Started is when it began.
	Started time.Time
	// Attempts counts how often the rotation was resumed.
	Attempts int
	// Holder is the random name of the process that is working on it, or that died while it
	// was; empty if there is none. Lease is how long other processes wait for the holder
	// after its last write to the record, for example 20 s.
	Holder string
	Lease  time.Duration
}

// LoadKeyState reads the key record of a store, for diagnosis. It changes
// nothing. The error matches [ErrNoRecord] if the store has no key yet, and
// [ErrInvalidRecord] if the record cannot be used.
func LoadKeyState(ctx context.Context, store Store) (KeyState, error) {
	if store == nil {
		return KeyState{}, optionError("LoadKeyState", "the store is nil")
	}
	e, err := record.Keys(record.Config{Store: recordStore(store), Mismatch: newMismatch}).Load(ctx)
	if err != nil {
		return KeyState{}, err
	}
	k := e.Body
	s := KeyState{
		Credential: Credential{k.Current.Credential}, KeyID: k.Current.ID, AgentID: k.Agent,
		Generation: k.Generation, Created: k.Current.Created, Expires: k.Current.Expires,
	}
	if in := k.Intent; in != nil {
		s.Unfinished = &UnfinishedRotation{
			Strategy: Strategy(rotation.StrategyNamed(in.Strategy)), Stage: Stage(in.Stage), Started: in.Started,
			Attempts: in.Attempts, Holder: e.Lease.Holder, Lease: e.Lease.Duration,
		}
	}
	return s, nil
}
