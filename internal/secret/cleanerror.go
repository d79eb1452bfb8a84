package secret

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"reflect"
)

const (
	// maxErrors bounds how many errors of a tree CleanError reads.
	maxErrors = 100
	// maxDump bounds what fmt may print of an error that is kept.
	maxDump = 64 << 10
)

var errTooMany = errors.New("agrenting: further errors are not shown")

// CleanError returns err without the parts that redact removes from texts. It checks the error
// and all errors that it wraps: their texts, and the output of the verbs %+v and %#v. An error
// that shows no secret is returned unchanged. Otherwise, the result matches everything that err
// matches. [errors.As] finds the wrapped errors that show no secret, and copies of a
// [url.Error] and a [net.OpError].
func CleanError(err error, redact func(string) string) error {
	if err == nil {
		return nil
	}
	c := cleaner{redact: redact, left: maxErrors}
	out, _ := c.clean(err)
	return out
}

// WithoutSecrets is like [CleanError], for known secrets. The text of the result is one line
// without invisible characters, and is cut off after 2 KiB.
func WithoutSecrets(err error, secrets ...string) error {
	if err == nil {
		return nil
	}
	if len(secrets) > 0 {
		err = CleanError(err, NewRedactor(secrets...).Redact)
	}
	text := err.Error()
	if line := Line(Bounded(text)); line != text {
		return NewError(line, err, err)
	}
	return err
}

// CleanPanic is like [CleanError], for the value of a panic. A value that is not an error is
// replaced with its redacted text. same reports that the value shows no secret.
func CleanPanic(value any, redact func(string) string) (out any, same bool) {
	c := cleaner{redact: redact, left: maxErrors}
	if err, ok := value.(error); ok {
		return c.clean(err)
	}
	if text := fmt.Sprint(value); c.shows(value, text) {
		return c.cut(text), false
	}
	return value, true
}

// PanicError returns an error for the value of a panic, without the given secrets and without
// anything that looks like a secret.
func PanicError(who string, value any, secrets ...string) error {
	c := cleaner{redact: func(text string) string { return Clean(RedactLikely(Redact(text, secrets...))) }}
	return fmt.Errorf("agrenting: %s panicked: %s", who, c.cut(fmt.Sprint(value)))
}

// cleaner reads one tree of errors.
type cleaner struct {
	redact func(string) string
	left   int // how many errors may still be read
}

// clean returns err without the parts that redact removes. same reports that the result is err
// itself.
func (c *cleaner) clean(err error) (out error, same bool) { //nolint:revive // the error is a value
	c.left--
	if c.left < 0 {
		return errTooMany, false
	}
	beneath, same := c.beneath(err)
	text := err.Error()
	if same && !c.shows(err, text) {
		return err, true
	}
	if out := c.copied(err, beneath); out != nil {
		return out, false
	}
	out = NewError(c.cut(text), beneath, err)
	if t, ok := err.(interface{ Timeout() bool }); ok { // this one, not what it wraps
		temporary, _ := err.(interface{ Temporary() bool })
		out = &timeoutError{error: out, timeout: t.Timeout(), temporary: temporary != nil && temporary.Temporary()}
	}
	return out, false
}

// beneath returns what err wraps, without the parts that redact removes. same reports that
// nothing was removed.
func (c *cleaner) beneath(err error) (beneath error, same bool) { //nolint:revive // the error is a value
	var wrapped []error
	switch w := err.(type) { //nolint:errorlint // this one, not what it wraps
	case interface{ Unwrap() error }:
		wrapped = []error{w.Unwrap()}
	case interface{ Unwrap() []error }:
		wrapped = w.Unwrap()
	case interface{ Cause() error }:
		wrapped = []error{w.Cause()}
	}
	same = true
	var kept []error
	for _, w := range wrapped {
		if w == nil {
			continue
		}
		if c.left <= 0 {
			return errors.Join(append(kept, errTooMany)...), false
		}
		out, unchanged := c.clean(w)
		kept, same = append(kept, out), same && unchanged
	}
	if len(kept) == 1 {
		return kept[0], same
	}
	return errors.Join(kept...), same
}

// copied returns a clean copy of an error of a type that callers search for. It returns nil for
// other types.
func (c *cleaner) copied(err, beneath error) error {
	if beneath == nil {
		return nil
	}
	var out error
	switch e := err.(type) { //nolint:errorlint // this one, not what it wraps
	case *url.Error:
		out = &url.Error{Op: c.cut(e.Op), URL: c.cut(e.URL), Err: beneath}
	case *net.OpError:
		op := *e
		op.Err = beneath
		out = &op
	}
	if out == nil || c.shows(out, out.Error()) {
		return nil
	}
	return out
}

// shows reports whether fmt prints a part of a value that redact removes. text is the first
// form in which fmt prints it.
func (c *cleaner) shows(value any, text string) bool {
	if len(text) > maxDump || c.redact(text) != text {
		return true
	}
	if t := reflect.TypeOf(value); t.Kind() == reflect.Pointer {
		switch t.Elem().PkgPath() {
		case "errors", "fmt": // they contain only their text and what they wrap
			return false
		}
	}
	for _, verb := range []string{"%+v", "%#v"} {
		if dump := fmt.Sprintf(verb, value); dump != text && (len(dump) > maxDump || c.redact(dump) != dump) {
			return true
		}
	}
	return false
}

// cut redacts a text of limited length.
func (c *cleaner) cut(text string) string { return c.redact(Bounded(text)) }

// timeoutError is the clean form of an error with a Timeout method.
type timeoutError struct {
	error

	timeout, temporary bool
}

func (e *timeoutError) Unwrap() error   { return e.error }
func (e *timeoutError) Timeout() bool   { return e.timeout }
func (e *timeoutError) Temporary() bool { return e.temporary }
