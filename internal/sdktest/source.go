package sdktest

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/agrenting/agrenting-go"
)

// Refreshing is a source with a configurable result after a rejection.
type Refreshing struct {
	Source
	mu       sync.Mutex
	Next     agrenting.Credential
	NextErr  error
	Rejected []agrenting.Credential
}

// Refresh implements agrenting.Refresher.
func (r *Refreshing) Refresh(_ context.Context, rejected agrenting.Credential) (agrenting.Credential, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Rejected = append(r.Rejected, rejected)
	return r.Next, r.NextErr
}

// Source is a source with a replaceable credential. It counts how often it is
// asked, and can make the caller wait.
type Source struct {
	mu      sync.Mutex
	Cred    agrenting.Credential
	Err     error
	fetches int
	held    chan struct{} // fetches wait until it is closed
}

// NewSource returns a source of an API key.
func NewSource(secret string) *Source { return &Source{Cred: agrenting.APIKey(secret)} }

// Credential implements agrenting.CredentialSource.
func (m *Source) Credential(ctx context.Context) (agrenting.Credential, error) {
	m.mu.Lock()
	m.fetches++
	held := m.held
	m.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return agrenting.Credential{}, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.Cred, m.Err
}

// Replace makes the source return another credential from now on.
func (m *Source) Replace(c agrenting.Credential) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Cred = c
}

// Hold makes the fetches from now on wait until release is called.
func (m *Source) Hold() (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	held := make(chan struct{})
	m.held = held
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.held = nil
		close(held)
	}
}

// Count returns how often the source was asked.
func (m *Source) Count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fetches
}

// ChangingKey returns an initial key that changes while the client runs.
func ChangingKey(secret string) (set func(secret string), opt agrenting.Option) {
	var p atomic.Pointer[agrenting.Credential]
	set = func(s string) {
		c := agrenting.APIKey(s)
		p.Store(&c)
	}
	set(secret)
	return set, agrenting.WithCredentialSource(agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) { return *p.Load(), nil }))
}
