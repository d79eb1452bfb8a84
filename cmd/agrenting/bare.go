package main

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/agrenting/agrenting-go"
)

// rotationSuffix is added to the name of --out for the store of a rotation without --store.
const rotationSuffix = ".rotation"

// A bareRotation is a rotation without --store, over a temporary store that the same command
// finds again.
type bareRotation struct {
	cmd    *keysRotateCmd
	app    *app // with the temporary store; nil until that is found or created
	before agrenting.Credential
	asked  bool // the platform was asked for a key
}

// fromFile is a file in the temporary store with the fingerprint of the key that is rotated.
const fromFile = "from"

// withoutStore rotates the key over a temporary store. The store is removed if the new key was
// written to the place that the flags name, or if nothing was changed.
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
	key, err := given.Credential(a.ctx)
	if err != nil {
		return err
	}
	source := given.Status().Source
	r := &bareRotation{cmd: c, before: key}
	finished, err := r.find(a)
	if err != nil {
		return err
	}
	if finished != nil {
		err = r.deliver(s, *finished)
	} else {
		if err := a.confirm(c.confirmFlags, c.bareQuestion(a, given, key)); err != nil {
			return err
		}
		if err := r.place(a); err != nil {
			return err
		}
		err = r.run(s)
	}
	if err == nil && (source != varKeyFile || a.env(varKeyFile) != c.Out) {
		a.ui.note("the key from %s is revoked; replace it with the new one", a.sourceName(source))
	}
	return err
}

// folders returns the folders for the temporary store in the order of preference: beside --out,
// and in the folder for temporary files, which is for keys that are printed and for a folder of
// --out that other users can write to.
func (r *bareRotation) folders() ([]string, error) {
	temp := filepath.Join(os.TempDir(), "agrenting-rotation-"+strings.ReplaceAll(r.before.Fingerprint(), ":", "-"))
	if r.cmd.Out == "" {
		return []string{temp}, nil
	}
	path, err := filepath.Abs(r.cmd.Out)
	return []string{path + rotationSuffix, temp}, err
}

// find looks for the store of an earlier run of the same command. finished is its
// state if that run rotated the key but could not write it.
func (r *bareRotation) find(a *app) (finished *agrenting.KeyState, err error) {
	folders, err := r.folders()
	if err != nil {
		return nil, err
	}
	for _, folder := range folders {
		// Anyone can make the one for temporary files.
		if info, err := os.Lstat(folder); err == nil && privateFile(info) {
			return r.resume(a.withStore(folder))
		}
	}
	return nil, nil //nolint:nilnil // there is no earlier run
}

// resume uses the store of an earlier run, or returns an error if it is not one of the same
// command.
func (r *bareRotation) resume(b *app) (finished *agrenting.KeyState, err error) {
	state, err := b.stored()
	none := errors.Is(err, agrenting.ErrNoRecord)
	if err != nil && !none {
		return nil, err
	}
	from, _ := os.ReadFile(filepath.Join(b.Store, fromFile)) // #nosec G304 -- checked with the store
	switch {
	case len(from) == 0:
		if err := unmarkedFolder(b.Store); err != nil {
			return nil, err
		}
	case !none && state.Unfinished == nil && state.Credential.Equal(r.before):
		// The key that was saved there is in use.
	case strings.TrimSpace(string(from)) != r.before.Fingerprint():
		return nil, usage("agrenting keys rotate --store "+b.Store+" finishes it; remove the folder if no program uses its key",
			"%s has the unfinished rotation of a key other than %s", b.Store, r.before.Fingerprint())
	case none: // it was killed before it did anything
	case state.Unfinished == nil:
		finished = &state
	default:
		b.ui.note("an earlier run has not finished this rotation; this one continues it (%s)", b.Store)
	}
	r.app = b
	return finished, nil
}

// unmarkedFolder checks a folder without fromFile. If an earlier run made the folder but did
// not mark it yet, then it has only that run's temporary files. Any other file in it belongs to
// the user and must not be removed with the store.
func unmarkedFolder(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return failure("pass --store FOLDER", "%s cannot be read: %v", folder, cause(err))
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".agrenting-") {
			return usage("move the folder, choose another --out, or pass --store FOLDER",
				"%s is needed for the rotation, but it has files that no rotation wrote, such as %s", folder, visible(e.Name()))
		}
	}
	return nil
}

// place creates the temporary store, unless an earlier run has created it.
func (r *bareRotation) place(a *app) error {
	if r.app != nil {
		return r.mark()
	}
	folders, err := r.folders()
	for _, folder := range folders {
		if err = os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			continue
		}
		b := a.withStore(folder)
		_, lerr := b.stored()
		if lerr == nil || errors.Is(lerr, agrenting.ErrNoRecord) {
			r.app = b
			return r.mark()
		}
		if err != nil { // it existed already
			return lerr
		}
		_ = os.Remove(folder)
		err = lerr
	}
	return failure("pass --store FOLDER", "cannot make a temporary store: %v", cause(err))
}

// mark records which key is rotated.
func (r *bareRotation) mark() error {
	path := filepath.Join(r.app.Store, fromFile)
	if err := writeFile(path, r.before.Fingerprint()); err != nil {
		if entries, lerr := os.ReadDir(r.app.Store); lerr == nil && len(entries) == 0 {
			_ = os.Remove(r.app.Store)
		}
		return err
	}
	syncFolder(r.app.Store)
	return nil
}

// again is how to continue a rotation.
const again = "run the same command again"

// run rotates the key.
func (r *bareRotation) run(s *sink) error {
	a := r.app
	watch := newRotationWatch(a)
	watch.again = again
	defer watch.end()
	policy := r.cmd.policy()
	policy.Grace = -1 // no other process uses this store
	if state, err := a.stored(); err == nil {
		watch.recovers = state.Unfinished != nil
	}
	store, err := agrenting.FileStore(a.Store)
	if err == nil {
		var client *agrenting.Client
		client, err = a.as(r.before, agrenting.WithStore(store), agrenting.WithRotation(policy), agrenting.WithObserver(watch.event))
		if err == nil {
			err = r.cmd.rotate(a, client, s, watch, "")
			_ = client.Close() // rotate has reported it if it matters
		}
	}
	watch.end()
	r.asked = watch.asked || watch.recovers
	return r.settle(err)
}

// deliver writes the key that an earlier run could not write.
func (r *bareRotation) deliver(s *sink, state agrenting.KeyState) error {
	secret := state.Credential.Reveal()
	err := s.put(secret)
	if err == nil {
		r.cmd.report(r.app, s, &agrenting.Rotation{
			From: r.before.Fingerprint(), To: state.Credential.Fingerprint(), Generation: state.Generation, Recovered: true,
		}, secret, "", false)
	}
	return r.settle(err)
}

// settle removes the temporary store, or reports what it still has.
func (r *bareRotation) settle(err error) error {
	a := r.app
	if err == nil && r.cmd.shows() {
		err = a.unwritten(true)
	}
	state, lerr := a.stored()
	if err == nil || errors.Is(lerr, agrenting.ErrNoRecord) || (lerr == nil && r.unchanged(state)) {
		_ = os.RemoveAll(a.Store)
		return err
	}
	e := *a.classify(err)
	if e.kind == "interrupted" && e.hint != "" {
		return &e // the hint says how to continue
	}
	if failed, ok := errors.AsType[*agrenting.RotationError](err); ok {
		if _, issued := failed.NewCredential(); issued { // the hint says where it is
			e.msg = "the key was rotated, and the old one is revoked, but the temporary store could not be written: " + textOf(failed.Err)
			return &e
		}
		if conclusive(failed.RawResponse()) { // the hint says to save it
			e.hint = joinHints(e.hint, "then remove "+a.Store)
			return &e
		}
	}
	switch {
	case lerr == nil && state.Unfinished == nil:
		e.msg = "the key was rotated, and the old one is revoked, but " + e.msg
		where := "the new key is kept in --store " + a.Store
		if file, err := rescued(a.Store, state.Credential.Reveal()); err == nil {
			where = "the new key is in " + file
		}
		e.hint = where + "; " + again + " to write it to " + cmp.Or(r.cmd.Out, "standard output")
	case e.code == codeRefused, e.code == codeCredential:
		e.hint = joinHints(e.hint, again+" with the same key to finish the rotation, which is in "+a.Store)
	default: // a network hint would not mention the rotation
		e.hint = again + " to finish the rotation: it uses the same idempotency key, so that no key is lost. The rotation is in " + a.Store
	}
	e.unknown = lerr != nil || (state.Unfinished != nil && state.Unfinished.Stage == agrenting.StageIssue)
	return &e
}

// unchanged reports whether this run changed nothing on the platform and no other process is
// working on the rotation.
func (r *bareRotation) unchanged(state agrenting.KeyState) bool {
	in := state.Unfinished
	return state.Credential.Equal(r.before) && (in == nil || (!r.asked && in.Stage == agrenting.StagePrepare && in.Holder == ""))
}
