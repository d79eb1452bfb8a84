package main

import (
	"context"
	"errors"
	"os"
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

	Strategy string `enum:"auto,overlap,inplace" default:"auto" help:"overlap keeps the old key live until the new one is in use; inplace replaces it in one call. (${enum})"`
	KeyID    string `placeholder:"ID" help:"The platform's id of the key that is replaced, if the store does not know it."`
}

// Run replaces the key in use, in the store that was given or in a temporary one.
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
	if err := a.confirm(c.confirmFlags, "Rotate the key in "+a.Store+"? The old one is revoked."); err != nil {
		return err
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

// withoutStore rotates the key over a store in a temporary folder. The folder is
// removed if the new key was written where the flags say, or if nothing was changed.
func (c *keysRotateCmd) withoutStore(a *app) error {
	given, err := a.client()
	if err != nil {
		return err
	}
	defer given.Close()
	s, err := c.open(true)
	if err != nil {
		return preferStore(c.secretFlags, err)
	}
	defer s.close()
	source := a.sourceName(given.Status().Source)
	if err := a.confirm(c.confirmFlags, "Rotate the key from "+source+"? The old one stops working, for everybody who has it."); err != nil {
		return err
	}
	key, err := given.Credential(a.ctx)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "agrenting-rotation-*") // 0700
	if err != nil {
		return failure("give --store FOLDER", "cannot make a temporary folder: %v", cause(err))
	}
	err = c.over(a.withStore(folder), key, s)
	if err == nil && (given.Status().Source != varKeyFile || a.env(varKeyFile) != c.Out) {
		a.ui.note("the key from %s is dead; put the new one in its place", source)
	}
	return err
}

// over rotates key over the store of a, which is in a temporary folder.
func (c *keysRotateCmd) over(a *app, key agrenting.Credential, s *sink) error {
	watch := newRotationWatch(a)
	watch.again = "run agrenting keys rotate --store " + a.Store
	defer watch.end()
	policy := c.policy()
	policy.Grace = -1 // no other process uses this store
	store, err := agrenting.FileStore(a.Store)
	if err == nil {
		var client *agrenting.Client
		client, err = a.as(key, agrenting.WithStore(store), agrenting.WithRotation(policy), agrenting.WithObserver(watch.event))
		if err == nil {
			err = c.rotate(a, client, s, watch, "")
			_ = client.Close() // rotate has reported it if it matters
		}
	}
	return c.settle(a, key, err)
}

// settle removes the temporary store, or says what it still has.
func (c *keysRotateCmd) settle(a *app, before agrenting.Credential, err error) error {
	if err == nil && c.shows() {
		err = a.unwritten(true)
	}
	state, lerr := a.stored()
	unchanged := errors.Is(lerr, agrenting.ErrNoRecord) || (lerr == nil && state.Unfinished == nil && state.Credential.Equal(before))
	if err == nil || unchanged {
		_ = os.RemoveAll(a.Store)
		return err
	}
	e := *a.classify(err)
	hint := "agrenting keys rotate --store " + a.Store + " finishes the rotation; give it the same key"
	if lerr == nil && state.Unfinished == nil {
		e.msg = "the key was rotated: the old one is dead; " + e.msg
		hint = "the new key is kept in --store " + a.Store
		if file, err := rescued(a.Store, state.Credential.Reveal()); err == nil {
			hint = "the new key is in " + file
		}
	}
	if e.kind == "interrupted" && e.hint != "" {
		return &e // the hint says how to continue
	}
	e.hint = joinHints(e.hint, hint)
	return &e
}

// joinHints joins two hints; the first may be empty.
func joinHints(first, second string) string {
	if first == "" {
		return second
	}
	return first + "; " + second
}

// preferStore recommends --store first if no flag says where the new key goes: with a
// store, nothing can be lost.
func preferStore(f secretFlags, err error) error {
	e, ok := errors.AsType[*cliError](err)
	if !ok || f.Out != "" || f.Show {
		return err
	}
	better := *e
	better.hint = "give --store FOLDER: the new key is kept there before the old one goes; without a store, " + e.hint
	return &better
}

// rotate replaces the key in the store of a. A rotation that is interrupted is
// finished if that is a matter of seconds, and otherwise by the next run, or by any
// other process that has the store. shown is the store to report.
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
			Store: shown, File: c.Out, Secret: s.shown(secret),
		})
		return nil
	}
	a.ui.pairs(
		pair{"from", r.From}, pair{"to", r.To}, pair{"generation", strconv.FormatUint(r.Generation, 10)},
		pair{"strategy", r.Strategy.String()}, pair{"took", r.Took.Round(time.Millisecond).String()},
		pair{"store", shown}, pair{"file", c.Out}, pair{"secret", s.shown(secret)},
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

// rotationWatch shows the progress of a rotation. It also has the result of a rotation
// that was interrupted and finished nevertheless.
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

	recovers bool   // an earlier run has left an unfinished rotation behind
	again    string // how to continue
}

func newRotationWatch(a *app) *rotationWatch {
	return &rotationWatch{app: a, stop: func() {}, again: "run it again"}
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
		in := ""
		if w.app.temporary {
			in = " with --store " + w.app.Store
		}
		w.show("interrupted; finishing what is under way (interrupt again to leave it to the next run"+in+")", "finishing")
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
		e.hint = w.again + " to see it finished"
	case w.waiting:
		e.msg = "interrupted; this run changed nothing, another process is rotating the key"
		e.hint = w.again + ": if that process was killed, the next run finishes the rotation"
	case in != nil && in.Strategy == agrenting.InPlace && in.Stage != agrenting.StagePrepare && in.Stage != agrenting.StageForget:
		e.msg = "interrupted at the stage " + string(in.Stage) + "; the platform may have replaced the key already"
		e.hint = w.again + " at once: it gets the new key by the same idempotency key, and finishes the rotation"
	case in != nil:
		e.msg = "interrupted at the stage " + string(in.Stage) + "; " + key + ", and nothing is lost"
		e.hint = w.again + " to finish the rotation"
	default:
		e.msg = "interrupted; nothing was changed, " + key
	}
	return e
}
