package sdktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// Canary records everything that a client writes outside its store: log
// records, events, the texts of errors, and what a test prints. It knows the
// secrets, and finds those that have leaked.
type Canary struct {
	mu      sync.Mutex
	said    bytes.Buffer
	secrets map[string]bool
	clean   *CleanTexts // nil, or shared with other canaries
	forms   []string    // of what is in said, if clean is set
}

// CleanTexts are the texts that had no secret in earlier scenarios. Tests that run
// thousands of scenarios, each with other random secrets, search a text only once:
// texts that differ in times, UUIDs, fingerprints, and numbers count as the same text.
// A text with a secret differs from all others, because secrets have long runs of
// random characters. The zero value is empty. It is safe for concurrent use.
type CleanTexts struct{ forms sync.Map }

// maxShortRun is the length of the longest run of hex digits that is not part of a
// secret: 12 digits of a UUID, or the 10 of a fingerprint.
const maxShortRun = 12

// formOf returns a text with short runs of hex digits replaced by zeros.
func formOf(text []byte) string {
	form := bytes.Clone(text)
	for start := 0; start < len(form); start++ {
		end := start
		for end < len(form) && (form[end] >= '0' && form[end] <= '9' || form[end] >= 'a' && form[end] <= 'f') {
			end++
		}
		if end-start <= maxShortRun {
			for ; start < end; start++ {
				form[start] = '0'
			}
		}
		start = end
	}
	return string(form)
}

// NewCanary returns a canary for the given secrets.
func NewCanary(secrets ...string) *Canary {
	c := &Canary{secrets: map[string]bool{}}
	for _, s := range secrets {
		c.secrets[s] = true
	}
	return c
}

// Skip has the canary search only texts that other canaries with the same clean texts
// have not searched. Call it before the first text.
func (c *Canary) Skip(clean *CleanTexts) { c.clean = clean }

// Hide adds secrets that must not leak.
func (c *Canary) Hide(creds ...agrenting.Credential) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cred := range creds {
		if !cred.IsZero() {
			c.secrets[cred.Reveal()] = true
		}
	}
}

// HideRecord adds the secrets of a record.
func (c *Canary) HideRecord(rec record.Key) {
	for _, cred := range rec.Credentials() {
		c.Hide(agrenting.APIKey(cred.Reveal()))
	}
}

// Write implements io.Writer, for log handlers.
func (c *Canary) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clean != nil {
		form := formOf(b)
		if _, known := c.clean.forms.Load(form); known {
			return len(b), nil
		}
		c.forms = append(c.forms, form)
	}
	return c.said.Write(b)
}

// Hear records values that a program may print.
func (c *Canary) Hear(values ...any) {
	for _, v := range values {
		_, _ = fmt.Fprintf(c, "%v\n%+v\n%#v\n", v, v, v)
		if err, ok := v.(error); ok {
			if e, ok := errors.AsType[*agrenting.RotationError](err); ok {
				_, _ = fmt.Fprintf(c, "%s %s %s %v\n", e.State, e.Advice, e.Stage, e.Err)
			}
		}
	}
}

// Options returns the options that connect a client to the canary.
func (c *Canary) Options() []agrenting.Option {
	log := slog.New(slog.NewTextHandler(c, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return []agrenting.Option{agrenting.WithLogger(log), agrenting.WithObserver(func(e agrenting.Event) { c.Hear(e) })}
}

// Leaks returns the secrets that have leaked in any form. It shows only the end
// of each.
func (c *Canary) Leaks() (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := c.said.String()
	if secret.Redact(text, slices.Collect(maps.Keys(c.secrets))...) == text {
		for _, form := range c.forms {
			c.clean.forms.Store(form, true)
		}
		return nil
	}
	for s := range c.secrets {
		if secret.Redact(text, s) != text {
			out = append(out, "a secret has got out: …"+s[len(s)-4:])
		}
	}
	return out
}

// SpyStore adds the records that it saves to a canary.
type SpyStore struct {
	agrenting.Store
	Canary *Canary
}

// Save implements agrenting.Store.
func (s *SpyStore) Save(ctx context.Context, name string, data []byte, prev agrenting.Revision) (agrenting.Revision, error) {
	e, _ := RecordIn(name, data)
	rec := e.Body
	s.Canary.HideRecord(rec)
	return s.Store.Save(ctx, name, data, prev)
}
