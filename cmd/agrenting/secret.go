package main

import (
	"cmp"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/agrenting/agrenting-go"
)

var noTime time.Time

// secretFlags has the flags for the destination of a secret that the platform shows only once.
type secretFlags struct {
	Show  bool   `help:"Print the secret, which is shown only once. To a pipe or file, print nothing else."`
	Out   string `placeholder:"FILE" help:"Write the secret to FILE, which only its owner can read (0600)."`
	Force bool   `help:"Replace FILE if it exists."`
}

// shows reports whether standard output is the only place for the secret.
func (f secretFlags) shows() bool { return f.Show && f.Out == "" }

// loser is a command that reports what to do if its secret could not be printed. If msg is empty,
// the command had no secret.
type loser interface {
	lost() (msg, hint string)
}

func (*loginCmd) lost() (msg, hint string) {
	return "the key was exchanged for a session, but its token is lost", "it expires; agrenting logout with the same key ends it now, together with all other sessions of the key"
}

func (c *agentsRegisterCmd) lost() (msg, hint string) {
	msg = "the agent " + visible(c.DID) + " was registered, but its key is lost"
	if c.Anonymous {
		return msg, "it has no owner who can create a key for it: register an agent under another DID"
	}
	return msg, "agrenting agents mine shows its ID; create another key with agrenting keys create ID, and revoke the lost one with agrenting keys revoke"
}

// lostSecret returns the error for a secret that could not be printed, with its remedy.
// err is from unwritten.
func lostSecret(err error, msg, hint string) error {
	return &cliError{code: codeFailure, kind: "output", msg: msg + ": " + err.Error(), hint: hint, err: err}
}

// sink is the destination of one secret. It is opened before the platform is called, so that no
// key is lost if the folder cannot be written.
type sink struct {
	flags secretFlags
	file  *os.File // beside the target, to be renamed
}

// open prepares the destination of a secret. With need, it returns an error if no flag names a
// destination.
func (f secretFlags) open(need bool) (*sink, error) {
	switch {
	case f.Out == "" && !f.Show && need:
		return nil, usage("add --out FILE to keep it, or --show to print it", "the platform shows the secret only once")
	case f.Out == "":
		return &sink{flags: f}, nil
	}
	if _, err := os.Lstat(f.Out); err == nil && !f.Force {
		return nil, usage("add --force to replace it, or choose another name", "%s exists", f.Out)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, failure(fileHint(err), "cannot check %s: %v", f.Out, cause(err))
	}
	if info, err := os.Stat(f.Out); err == nil && !info.Mode().IsRegular() {
		return nil, usage("choose another name; --show prints the secret", "%s is not a regular file", f.Out)
	}
	return f.create()
}

// create creates the temporary file that will replace f.Out.
func (f secretFlags) create() (*sink, error) {
	file, err := os.CreateTemp(filepath.Dir(f.Out), ".agrenting-*") // 0600
	if err != nil {
		return nil, failure("choose a writable folder", "cannot write beside %s: %v", f.Out, cause(err))
	}
	s := &sink{flags: f, file: file}
	if err := reserve(file); err != nil {
		s.close()
		return nil, failure(fileHint(err), "cannot write %s: %v", f.Out, cause(err))
	}
	return s, nil
}

// reserved is the space that is reserved for a file before the platform is called, in bytes. It
// is more than any secret needs.
const reserved = 16 << 10

// reserve makes sure that a new file has space for a secret, so that a full disk is detected
// before the secret is issued. The file is overwritten later, which needs no more space on most
// file systems.
func reserve(f *os.File) error {
	filler := make([]byte, reserved)
	_, _ = rand.Read(filler) // zeros need no space on disks that compress
	if _, err := f.Write(filler); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// put writes the secret as a line. If the file could not be replaced, the secret stays in the
// temporary file.
func (s *sink) put(secret string) error { return s.end(secret + "\n") }

// end writes the last part of the file.
func (s *sink) end(text string) error {
	left, err := s.write(text)
	if err == nil {
		return nil
	}
	msg := s.flags.Out + " could not be written: " + cause(err).Error()
	if left != "" {
		msg += "; its content is in " + left
	}
	return &cliError{code: codeFailure, kind: "file", msg: msg, hint: fileHint(err), err: err}
}

// write is like end, but returns the error without a message. left is the path of the temporary
// file if that file has the text.
func (s *sink) write(text string) (left string, err error) {
	if s.file == nil {
		return "", nil
	}
	f := s.file
	s.file = nil
	kept, err := become(f, s.flags.Out, text)
	if kept {
		left = f.Name()
	}
	return left, err
}

// become adds text to a temporary file and replaces another file with it. left reports whether f
// still exists and has the text.
func become(f *os.File, path, text string) (left bool, err error) {
	_, err = f.WriteString(text)
	if err == nil {
		err = cut(f)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return false, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		_, lerr := os.Lstat(f.Name()) // the whole folder may be missing
		return lerr == nil, err
	}
	syncFolder(path)
	return false, nil
}

// cut truncates a file after the last byte that was written.
func cut(f *os.File) error {
	end, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	return f.Truncate(end)
}

// close removes a file that was not used.
func (s *sink) close() {
	if s.file != nil {
		_ = s.file.Close()
		_ = os.Remove(s.file.Name())
		s.file = nil
	}
}

// shown returns the secret if --show is given, otherwise "".
func (s *sink) shown(secret string) string {
	if s.flags.Show {
		return secret
	}
	return ""
}

const hintLost = "find it with agrenting keys list or agrenting tokens list, and revoke it"

// rescue saves what a rotation that failed has of the new key: the key that could not be saved,
// or the platform's response if the key was not found in it.
func (s *sink) rescue(a *app, err error) error {
	r, ok := errors.AsType[*agrenting.RotationError](err)
	if !ok {
		return err
	}
	key, known := r.NewCredential()
	secret := key.Reveal()
	if !known {
		body := r.RawResponse()
		if !conclusive(body) {
			return a.setAside(s, body, err)
		}
		secret = string(body)
	}
	where := s.place()
	switch {
	case s.flags.Out != "":
		if left, werr := s.write(secret + "\n"); werr != nil {
			if where = a.elsewhere(s, left, secret); where == "" {
				return lostSecret(werr, "a secret was issued, but it is lost", hintLost)
			}
			where += ", because " + s.flags.Out + " could not be written (" + cause(werr).Error() + ")"
		}
	case !s.flags.Show: // the store should have saved it
		if where = a.elsewhere(s, "", secret); where == "" {
			return err
		}
	}
	if err := s.print(a, secret); err != nil {
		return err
	}
	if !known {
		return unnamed(err, where)
	}
	e := *a.classify(err)
	e.hint = "the new key is saved: it " + where
	return &e
}

// place returns where the flags put the secret.
func (s *sink) place() string {
	if s.flags.Out == "" {
		return "was printed"
	}
	return "is in " + s.flags.Out
}

// print prints a secret if --show is given.
func (s *sink) print(a *app, secret string) error {
	if s.flags.Show {
		a.ui.line("%s", secret)
	}
	if err := a.unwritten(true); err != nil && s.flags.shows() {
		return lostSecret(err, "a secret was issued, but it is lost", hintLost)
	}
	return nil
}

// unnamed returns the error for a response that was saved because it has a secret in an unknown
// field.
func unnamed(err error, where string) error {
	return &cliError{
		code: codeFailure, kind: "malformed_response", err: err,
		msg:  "the platform issued a secret in an unknown field; its response contains the secret: it " + where,
		hint: "save the secret from it; the platform does not show it again",
	}
}

// rescued saves a secret in a new file in the folder of the store that should have saved it, or
// beside that folder if the folder cannot be written.
func rescued(store, secret string) (path string, err error) {
	if store == "" {
		return "", fs.ErrInvalid
	}
	f, err := os.CreateTemp(store, "rescued-*") // 0600
	if err != nil {
		f, err = os.CreateTemp(filepath.Dir(store), filepath.Base(store)+".rescued-*")
	}
	if err != nil {
		return "", err
	}
	_, err = become(f, f.Name(), secret+"\n")
	return f.Name(), err
}

// jsonIssued is the output of --json for a new secret.
type jsonIssued struct {
	ID          string    `json:"id,omitempty"`
	AgentID     string    `json:"agent_id,omitempty"`
	Name        string    `json:"name,omitempty"`
	Kind        string    `json:"kind"`
	Fingerprint string    `json:"fingerprint"`
	Created     time.Time `json:"created,omitzero"`
	Expires     time.Time `json:"expires,omitzero"`
	File        string    `json:"file,omitempty"`
	Secret      string    `json:"secret,omitempty"`
}

// issued saves and reports a new secret. Its argument is the only copy of the secret.
func (a *app) issued(s *sink, i *issuing, what string, k *agrenting.IssuedKey) error {
	secret := k.Credential.Reveal()
	made := "the " + what + " " + visible(cmp.Or(k.ID, k.Credential.Fingerprint())) + " was created"
	if err := i.keep(s, made, revokeHint(what, k), secret+"\n"); err != nil {
		return err
	}
	if a.JSON {
		a.encode(jsonIssued{
			ID: k.ID, AgentID: k.AgentID, Name: k.Name, Kind: kindName(k.Credential.Kind()),
			Fingerprint: k.Credential.Fingerprint(), Created: k.Created, Expires: k.Expires,
			File: s.flags.Out, Secret: s.shown(secret),
		})
		return a.lost(s, what, k)
	}
	a.ui.pairs(
		pair{what, k.Credential.Fingerprint()}, pair{"id", k.ID}, pair{"name", k.Name}, pair{"agent", k.AgentID},
		pair{"expires", when(k.Expires)}, pair{"file", s.flags.Out}, pair{secretName, s.shown(secret)},
	)
	return a.lost(s, what, k)
}

// lost returns the error for a secret that was lost because it could not be printed.
func (a *app) lost(s *sink, what string, k *agrenting.IssuedKey) error {
	err := a.unwritten(true)
	if err == nil || !s.flags.shows() {
		return nil
	}
	msg := "the " + what + " " + visible(cmp.Or(k.ID, k.Credential.Fingerprint())) + " was created, but its secret is lost"
	hint := revokeHint(what, k)
	if k.ID != "" {
		hint += ", and create another"
	}
	return lostSecret(err, msg, hint)
}

// revokeHint returns how to revoke a new key or token.
func revokeHint(what string, k *agrenting.IssuedKey) string {
	if k.ID == "" {
		return "agrenting " + what + "s list shows it; revoke it with agrenting " + what + "s revoke"
	}
	hint := "revoke it with agrenting " + what + "s revoke " + visible(k.ID)
	if what == "key" && k.AgentID != "" {
		hint += " --of " + visible(k.AgentID)
	}
	return hint
}

// kindName returns the name of a kind as in AGRENTING_CREDENTIAL_TYPE.
func kindName(k agrenting.Kind) string {
	switch k {
	case agrenting.KindAPIKey:
		return "api_key"
	case agrenting.KindUserToken:
		return "user_token"
	case agrenting.KindSession:
		return "session"
	default:
		return ""
	}
}

// cause returns the error of the operating system, without the path.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	if l, ok := errors.AsType[*os.LinkError](err); ok {
		return l.Err
	}
	return err
}

// writeFile writes data that may be secret to a file that only its owner can read. It replaces
// the file in one step.
func writeFile(path, text string) error {
	s, err := secretFlags{Out: path}.create()
	if err != nil {
		return err
	}
	left, err := become(s.file, path, text+"\n")
	if left {
		_ = os.Remove(s.file.Name())
	}
	if err != nil {
		return failure("choose another place", "%s could not be written: %v", path, cause(err))
	}
	return nil
}
