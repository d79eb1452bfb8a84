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
	Store       string  `json:"store"`
	File        string  `json:"file,omitempty"`
	Secret      string  `json:"secret,omitempty"`
}

// throughStore rotates without losing anything: when it is interrupted, the
// rotation is finished if that is a matter of seconds, and otherwise by the next
// run, or by whoever else has the store.
func (c *keysRotateCmd) throughStore(a *app) error {
	policy := agrenting.RotationPolicy{Every: -1, KeyID: c.KeyID}
	switch c.Strategy {
	case "overlap":
		policy.Strategy = agrenting.Overlap
	case "inplace":
		policy.Strategy = agrenting.InPlace
	}
	watch := &rotationWatch{app: a, stop: func() {}}
	defer watch.end()
	client, err := a.client(agrenting.WithRotation(policy), agrenting.WithObserver(watch.event))
	if err != nil {
		return err
	}
	defer client.Close()
	s, err := c.open(false)
	if err != nil {
		return err
	}
	defer s.close()
	if err := a.confirm(c.confirmFlags, "Rotate the key in "+a.Store+"? The old one is revoked."); err != nil {
		return err
	}
	if before, err := a.stored(); err == nil {
		watch.recovers = before.Unfinished != nil
	}
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
	if err := client.Close(); err != nil { // its notes come before the result
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
		return err
	}
	if a.JSON {
		encode(a.out, jsonRotation{
			From: r.From, To: r.To, Generation: r.Generation, Strategy: r.Strategy.String(), Seconds: r.Took.Seconds(),
			Recovered: r.Recovered, Adopted: r.Adopted, Interrupted: interrupted,
			Store: a.Store, File: c.Out, Secret: s.shown(secret),
		})
		return nil
	}
	a.ui.pairs(
		pair{"from", r.From}, pair{"to", r.To}, pair{"generation", strconv.FormatUint(r.Generation, 10)},
		pair{"strategy", r.Strategy.String()}, pair{"took", r.Took.Round(time.Millisecond).String()},
		pair{"store", a.Store}, pair{"file", c.Out}, pair{"secret", s.shown(secret)},
		pair{"note", howItWent(r, interrupted)},
	)
	return nil
}

// howItWent is what is out of the ordinary about a rotation.
func howItWent(r *agrenting.Rotation, interrupted bool) string {
	var all []string
	if r.Recovered {
		all = append(all, "recovered: this finished what an earlier run had begun")
	}
	if r.Adopted {
		all = append(all, "adopted: another process made this key meanwhile")
	}
	if interrupted {
		all = append(all, "interrupted, and finished nevertheless")
	}
	return strings.Join(all, "; ")
}

// rotationWatch shows how far a rotation is, and knows in the end what has
// become of one that nobody waits for any more.
type rotationWatch struct {
	app *app

	mu      sync.Mutex
	stop    func() // the present line of progress
	ended   bool
	waiting bool             // for another process
	worked  bool             // has done a step itself
	keys    []string         // fingerprints of the keys that were in use, in their order
	rotated *agrenting.Event // nil until it is done
	err     error            // of the rotation

	recovers bool // an earlier run has left an unfinished rotation behind
}

// unreadable is the error that has an answer with a key which was not found in
// it, nil if there is none.
func (w *rotationWatch) unreadable() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e, ok := errors.AsType[*agrenting.RotationError](w.err); ok && e.RawAnswer() != nil {
		return w.err
	}
	return nil
}

// event is the client's observer.
func (w *rotationWatch) event(e agrenting.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e.Type { //nolint:exhaustive // the others are no steps of a rotation
	case agrenting.EventRotated:
		w.rotated = &e
	case agrenting.EventRotationFailed:
		w.err = e.Err
	case agrenting.EventRotating:
		w.keys = append(w.keys, e.Previous, e.Fingerprint)
		w.waiting = !e.RetryAt.IsZero()
		if w.waiting {
			left := max(time.Second, e.RetryAt.Sub(e.Time).Round(time.Second))
			w.show("another process is rotating the key; if it was killed, this run continues in "+left.String(), "waiting for the other process")
		} else {
			w.worked = true
			w.show("rotating: "+e.Reason, "under way")
		}
	}
}

// show notes something, and then, as progress, that it takes its time.
func (w *rotationWatch) show(text, progress string) {
	if w.ended {
		return
	}
	w.stop()
	w.app.ui.note("%s", text)
	w.stop = w.app.waiting("%s", progress)
}

// finishing tells why an interruption does not end the command at once.
func (w *rotationWatch) finishing() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.waiting {
		w.show("interrupted; finishing what is under way (interrupt again to leave it to the next run)", "finishing")
	}
}

// end takes the line of progress away.
func (w *rotationWatch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.stop()
}

// result returns the result of a rotation that was finished although it was
// interrupted, nil if it was not.
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

// unfinished returns an error that says what an interruption has left behind.
func (w *rotationWatch) unfinished(state agrenting.KeyState) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := &cliError{code: codeInterrupted, kind: "interrupted", err: context.Canceled}
	key := "the key " + state.Credential.Fingerprint() + " is in use"
	switch in := state.Unfinished; {
	case w.waiting && w.worked:
		e.msg = "interrupted; another process has taken the rotation over"
		e.hint = "run it again to see it finished"
	case w.waiting:
		e.msg = "interrupted; this run changed nothing, another process is rotating the key"
		e.hint = "run it again: if that process was killed, the next run finishes the rotation"
	case in != nil && in.Strategy == agrenting.InPlace && in.Stage != agrenting.StagePrepare && in.Stage != agrenting.StageForget:
		e.msg = "interrupted at the stage " + string(in.Stage) + "; the platform may have replaced the key already"
		e.hint = "run it again at once: it gets the new key by the same idempotency key, and finishes the rotation"
	case in != nil:
		e.msg = "interrupted at the stage " + string(in.Stage) + "; " + key + ", and nothing is lost"
		e.hint = "run it again to finish the rotation"
	default:
		e.msg = "interrupted; nothing was changed, " + key
	}
	return e
}
