package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go"
)

type jsonRotation struct {
	From        string  `json:"from"`
	To          string  `json:"to"`
	Generation  uint64  `json:"generation"`
	Strategy    string  `json:"strategy"`
	Seconds     float64 `json:"seconds"`
	Recovered   bool    `json:"recovered"`
	Adopted     bool    `json:"adopted"`
	Interrupted bool    `json:"interrupted,omitempty"`
	Store       string  `json:"store,omitempty"`
	File        string  `json:"file,omitempty"`
	Secret      string  `json:"secret,omitempty"`
}

type keysRotateCmd struct {
	secretFlags
	confirmFlags

	Strategy string `enum:"auto,overlap,inplace" default:"auto" help:"overlap keeps the old key valid until the new one is in use; inplace replaces it in one call. (${enum})"`
	KeyID    string `placeholder:"ID" help:"The platform's ID of the old key, if the store does not have it."`
}

// Run replaces the key in use, in the store of --store or in a temporary store.
func (c *keysRotateCmd) Run(a *app) error {
	if a.Store == "" {
		return c.withoutStore(a)
	}
	watch := newRotationWatch(a)
	defer watch.end()
	client, err := a.client(agrenting.WithRotation(c.policy()), agrenting.WithObserver(watch.event))
	if err != nil {
		return err
	}
	defer client.Close()
	s, err := c.open(false)
	if err != nil {
		return err
	}
	defer s.close()
	if !c.Yes {
		question, err := c.storeQuestion(a, client)
		if err != nil {
			return err
		}
		if err := a.confirm(c.confirmFlags, question); err != nil {
			return err
		}
	}
	if before, err := a.stored(); err == nil {
		watch.recovers = before.Unfinished != nil
	}
	return c.rotate(a, client, s, watch, a.Store)
}

func (c *keysRotateCmd) policy() agrenting.RotationPolicy {
	policy := agrenting.RotationPolicy{Every: -1, KeyID: c.KeyID}
	switch c.Strategy {
	case "overlap":
		policy.Strategy = agrenting.Overlap
	case "inplace":
		policy.Strategy = agrenting.InPlace
	}
	return policy
}

// joinHints joins two hints; the first may be empty.
func joinHints(first, second string) string {
	if first == "" {
		return second
	}
	return first + "; " + second
}

// preferStore recommends --store first if no flag says where the new key goes, because a store
// cannot lose it.
func preferStore(f secretFlags, err error) error {
	e, ok := errors.AsType[*cliError](err)
	if !ok || f.Out != "" || f.Show {
		return err
	}
	better := *e
	better.hint = "pass --store FOLDER: the new key is saved there before the old one is revoked; without a store, " + e.hint
	return &better
}

// rotate replaces the key in the store of a. It finishes an interrupted rotation if that takes
// only seconds. Otherwise, the next run or any other process that uses the store finishes it.
// shown is the store to report.
func (c *keysRotateCmd) rotate(a *app, client *agrenting.Client, s *sink, watch *rotationWatch, shown string) error {
	began := time.Now()
	r, err := client.Rotate(a.ctx)
	_, failed := errors.AsType[*agrenting.RotationError](err)
	interrupted := err != nil && !failed && a.ctx.Err() != nil
	if interrupted {
		watch.finishing()
	}
	if err != nil && !interrupted {
		return s.rescue(a, err)
	}
	if err := client.Close(); err != nil { // prints its notes before the result
		return s.rescue(a, err)
	}
	watch.end()
	if err := watch.unreadable(); err != nil {
		return s.rescue(a, err)
	}
	key, err := a.stored()
	if err != nil {
		return err
	}
	if interrupted {
		if r = watch.result(time.Since(began)); r == nil {
			return watch.unfinished(key)
		}
	}
	secret := key.Credential.Reveal()
	if err := s.put(secret); err != nil {
		if shown == "" { // settle reports it
			return err
		}
		e := *a.classify(err)
		e.msg = "the key was rotated and is in --store " + shown + ", but " + e.msg
		return &e
	}
	c.report(a, s, r, secret, shown, interrupted)
	return nil
}

// report prints the result of a rotation. shown is the store to report.
func (c *keysRotateCmd) report(a *app, s *sink, r *agrenting.Rotation, secret, shown string, interrupted bool) {
	strategy := ""
	if r.Strategy != 0 {
		strategy = r.Strategy.String()
	}
	if a.JSON {
		a.encode(jsonRotation{
			From: r.From, To: r.To, Generation: r.Generation, Strategy: strategy, Seconds: r.Took.Seconds(),
			Recovered: r.Recovered, Adopted: r.Adopted, Interrupted: interrupted,
			Store: shown, File: c.Out, Secret: s.shown(secret),
		})
		return
	}
	a.ui.pairs(
		pair{"from", r.From}, pair{"to", r.To}, pair{"generation", strconv.FormatUint(r.Generation, 10)},
		pair{"strategy", strategy}, pair{"took", r.Took.Round(time.Millisecond).String()},
		pair{"store", shown}, pair{"file", c.Out}, pair{"secret", s.shown(secret)},
		pair{"note", howItWent(r, interrupted)},
	)
}

// howItWent returns what is unusual about a rotation.
func howItWent(r *agrenting.Rotation, interrupted bool) string {
	var all []string
	if r.Recovered {
		all = append(all, "recovered: this run finished the rotation of an earlier run")
	}
	if r.Adopted {
		all = append(all, "adopted: another process created this key")
	}
	if interrupted {
		all = append(all, "interrupted, but finished")
	}
	return strings.Join(all, "; ")
}

// rotationWatch shows the progress of a rotation. It also has the result of a rotation
// that was interrupted but finished.
type rotationWatch struct {
	app *app

	mu      sync.Mutex
	stop    func() // ends the current line of progress
	ended   bool
	waiting bool             // waits for another process
	worked  bool             // this run performed a step
	keys    []string         // fingerprints of the keys that were in use, in order
	rotated *agrenting.Event // nil until it is done
	err     error            // of the rotation

	asked    bool   // a key was requested from the platform
	recovers bool   // an earlier run left an unfinished rotation
	again    string // how to continue
}

func newRotationWatch(a *app) *rotationWatch {
	return &rotationWatch{app: a, stop: func() {}, again: "run it again"}
}

// unreadable returns the error that has a response in which the key was not found, or nil.
func (w *rotationWatch) unreadable() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e, ok := errors.AsType[*agrenting.RotationError](w.err); ok && e.RawResponse() != nil {
		return w.err
	}
	return nil
}

// event observes the events of the client.
func (w *rotationWatch) event(e agrenting.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e.Type { //nolint:exhaustive // the others are not steps of a rotation
	case agrenting.EventRotated:
		w.rotated = &e
	case agrenting.EventRotationFailed:
		w.err = e.Err
	case agrenting.EventRotating:
		w.keys = append(w.keys, e.Previous, e.Fingerprint)
		w.waiting = !e.RetryAt.IsZero()
		if w.waiting {
			left := max(time.Second, e.RetryAt.Sub(e.Time).Round(time.Second))
			w.show("another process is rotating the key; if it was killed, this run continues the rotation in "+left.String(), "waiting for the other process")
		} else {
			w.worked = true
			w.asked = w.asked || e.Reason == string(agrenting.StageIssue)
			w.show("rotating: "+e.Reason, "in progress")
		}
	}
}

// show prints a note, and then shows progress.
func (w *rotationWatch) show(text, progress string) {
	if w.ended {
		return
	}
	w.stop()
	w.app.ui.note("%s", text)
	w.stop = w.app.waiting("%s", progress)
}

// finishing explains why an interruption does not end the command immediately.
func (w *rotationWatch) finishing() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.waiting {
		w.show("interrupted; finishing the current step (interrupt again to leave it to the next run)", "finishing")
	}
}

// end erases the line of progress.
func (w *rotationWatch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.stop()
}

// result returns the result of a rotation that was finished although it was interrupted, or nil
// if it was not finished.
func (w *rotationWatch) result(took time.Duration) *agrenting.Rotation {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.rotated
	if e == nil {
		return nil
	}
	r := &agrenting.Rotation{To: e.Fingerprint, Generation: e.Generation, Took: took, Strategy: agrenting.Overlap, Recovered: w.recovers}
	if e.Reason == agrenting.InPlace.String() {
		r.Strategy = agrenting.InPlace
	}
	for _, key := range slices.Backward(w.keys) {
		if key != "" && key != e.Fingerprint {
			r.From = key
			break
		}
	}
	return r
}

// unfinished returns an error that describes the state after an interruption.
func (w *rotationWatch) unfinished(state agrenting.KeyState) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := &cliError{code: codeInterrupted, kind: "interrupted", err: context.Canceled}
	key := "the key " + state.Credential.Fingerprint() + " is in use"
	switch in := state.Unfinished; {
	case w.waiting && w.worked:
		e.msg = "interrupted; another process has taken over the rotation"
		e.hint = w.again + " to wait for its end"
	case w.waiting:
		e.msg = "interrupted; this run changed nothing; another process is rotating the key"
		e.hint = w.again + ": if that process was killed, the next run finishes the rotation"
	case in != nil && in.Strategy == agrenting.InPlace && in.Stage != agrenting.StagePrepare && in.Stage != agrenting.StageForget:
		e.msg = "interrupted at the stage " + string(in.Stage) + "; the platform may have replaced the key already"
		e.hint = w.again + " now: it gets the new key with the same idempotency key, and finishes the rotation"
	case in != nil:
		e.msg = "interrupted at the stage " + string(in.Stage) + "; " + key + ", and nothing is lost"
		e.hint = w.again + " to finish the rotation"
	default:
		e.msg = "interrupted; nothing was changed, " + key
	}
	return e
}
