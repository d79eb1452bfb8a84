// Package oauth2agrenting connects an [agrenting.Client] with golang.org/x/oauth2, in both
// directions: [TokenSource] hands the client's credential to a library that takes an
// [oauth2.TokenSource], and [CredentialSource] lets a client use the tokens of one.
//
// Prefer [agrenting.Client.HTTPClient] where a library takes an [net/http.Client]: it sends the
// credential only to the pinned origins, and resends requests that got a 401. A token source
// knows neither where a token is sent nor how that was answered.
package oauth2agrenting

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/oauth2"

	"github.com/agrenting/agrenting-go"
)

// TokenSource returns a source of the client's credential as a bearer token with its expiry.
// Each call of Token returns the credential in use, and waits while there is none, until ctx
// ends. It is safe for concurrent use.
//
// The platform takes sessions and user tokens as bearer tokens. For an API key, Token returns an
// error that matches [agrenting.ErrInvalidCredential]; use [agrenting.WithSession].
//
// The library decides where the token is sent: use it only for libraries whose requests go
// to the platform. An [oauth2.Transport] adds the token to each request that it sends, also to one
// that a redirect leads to another host. Do not put it into [oauth2.ReuseTokenSource], as [oauth2.NewClient] does: that
// keeps a token until its expiry, although the client may have renewed it. To let a client know that
// the platform refuses its credential, call [agrenting.Client.Verify].
func TokenSource(ctx context.Context, client *agrenting.Client) oauth2.TokenSource {
	return &tokenSource{ctx, client}
}

type tokenSource struct {
	ctx    context.Context //nolint:containedctx // Token has none, as with the sources of oauth2
	client *agrenting.Client
}

// Token implements [oauth2.TokenSource].
func (s *tokenSource) Token() (*oauth2.Token, error) {
	c, err := s.client.Credential(s.ctx)
	switch {
	case err != nil:
		return nil, err
	case c.IsZero():
		return nil, fmt.Errorf("%w: the client is anonymous", agrenting.ErrNoCredential)
	case c.Kind() == agrenting.KindAPIKey:
		return nil, fmt.Errorf("%w: an API key is not a bearer token; use WithSession", agrenting.ErrInvalidCredential)
	}
	return &oauth2.Token{AccessToken: c.Reveal(), TokenType: "Bearer", Expiry: c.Expires()}, nil
}

// CredentialSource returns a source for [agrenting.WithCredentialSource] that yields the tokens of
// ts as sessions, sent as Authorization: Bearer, with their expiry. Tokens of another type
// are an [agrenting.ErrInvalidCredential].
//
// A token source of oauth2 keeps its token until shortly before it expires. If the platform rejects
// it earlier, the source has nothing newer until then. [CredentialSourceFunc] has no such limit.
//
// Token has no context: give its HTTP client a timeout. While a call of Token hangs, the source
// fails when its own context ends, and makes no other call. It is safe for concurrent use.
func CredentialSource(ts oauth2.TokenSource) agrenting.Refresher {
	return &source{open: func() oauth2.TokenSource { return ts }}
}

// CredentialSourceFunc is [CredentialSource] for token sources that can be opened again, which
// forgets the token that they keep:
//
//	config := clientcredentials.Config{ClientID: id, ClientSecret: secret, TokenURL: url}
//	src := oauth2agrenting.CredentialSourceFunc(func() oauth2.TokenSource { return config.TokenSource(ctx) })
//
// After the platform has rejected a token, and after a call of open or Token that hangs, open is
// called again. It may take time, and may be called while an earlier call hangs.
func CredentialSourceFunc(open func() oauth2.TokenSource) agrenting.Refresher {
	return &source{open: open, reopens: true}
}

type source struct {
	open    func() oauth2.TokenSource
	reopens bool

	mu      sync.Mutex
	tokens  oauth2.TokenSource // nil until it is opened
	pending *pending
}

// pending is one call of open and Token, shared by all callers that ask while it runs.
type pending struct {
	done       chan struct{}
	credential agrenting.Credential
	err        error
}

// Credential implements [agrenting.CredentialSource].
func (s *source) Credential(ctx context.Context) (agrenting.Credential, error) {
	p := s.start()
	select {
	case <-p.done:
		return p.credential, p.err
	case <-ctx.Done():
		s.forget(p)
		return agrenting.Credential{}, context.Cause(ctx)
	}
}

// Refresh implements [agrenting.Refresher].
func (s *source) Refresh(ctx context.Context, rejected agrenting.Credential) (agrenting.Credential, error) {
	c, err := s.Credential(ctx)
	if err != nil || !c.Equal(rejected) || !s.reopens {
		return c, err
	}
	s.forget(nil)
	return s.Credential(ctx)
}

func (s *source) start() *pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending != nil {
		return s.pending
	}
	p, tokens := &pending{done: make(chan struct{})}, s.tokens
	s.pending = p
	go func() {
		defer close(p.done)
		p.credential, p.err = credentialFrom(tokens, func() oauth2.TokenSource {
			opened := s.open()
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.pending == p {
				s.tokens = opened
			}
			return opened
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.pending == p {
			s.pending = nil
		}
	}()
	return p
}

// forget has the next caller open the tokens again, if that is possible. p is a call that hangs,
// or nil.
func (s *source) forget(p *pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reopens && s.pending == p {
		s.tokens, s.pending = nil, nil
	}
}

// credentialFrom makes a credential of a token. It opens the token source if that is nil. A panic is
// an error, because it would end the program from this goroutine. Its value may be a secret.
func credentialFrom(tokens oauth2.TokenSource, open func() oauth2.TokenSource) (c agrenting.Credential, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("oauth2agrenting: the token source panicked with a %T", p)
		}
	}()
	if tokens == nil {
		tokens = open()
	}
	if tokens == nil {
		return c, fmt.Errorf("%w: the token source is nil", agrenting.ErrNoCredential)
	}
	t, err := tokens.Token()
	switch {
	case err != nil:
		return c, err
	case t == nil || t.AccessToken == "":
		return c, fmt.Errorf("%w: the token source returned an empty token and no error", agrenting.ErrNoCredential)
	case t.Type() != "Bearer":
		return c, fmt.Errorf("%w: the token is not a bearer token", agrenting.ErrInvalidCredential)
	}
	return agrenting.SessionToken(t.AccessToken, t.Expiry), nil
}
