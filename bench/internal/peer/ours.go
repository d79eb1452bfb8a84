package peer

import (
	"context"
	"log/slog"

	"github.com/agrenting/agrenting-go"
)

const key = "key-of-the-benchmark"

// options returns the options that all clients of this SDK start with.
func options(cfg Config, more ...agrenting.Option) []agrenting.Option {
	opts := []agrenting.Option{agrenting.WithTransport(cfg.Base), agrenting.WithoutEnvironment()}
	if cfg.URL != "" {
		opts = append(opts, agrenting.WithBaseURL(cfg.URL))
	}
	return append(opts, more...)
}

// source returns a source of sessions that expire.
func source(cfg Config) agrenting.CredentialSource {
	return agrenting.CredentialSourceFunc(func(ctx context.Context) (agrenting.Credential, error) {
		t, err := cfg.Exchange(ctx)
		if err != nil {
			return agrenting.Credential{}, err
		}
		return agrenting.SessionToken(t.Value, t.Expires), nil
	})
}

func transport(name string, src agrenting.CredentialSource, opts []agrenting.Option) (*Peer, error) {
	t, err := agrenting.NewTransport(src, opts...)
	if err != nil {
		return nil, err
	}
	p := OverTransport(name, t)
	p.Close = func() { _ = t.Close() }
	return p, nil
}

// OursStatic returns the Transport with a key that never changes.
func OursStatic(cfg Config) (*Peer, error) {
	return transport("agrenting, static key", agrenting.Static(agrenting.APIKey(key)), options(cfg))
}

// OursLive returns the Transport with a cached credential that expires and comes
// from the caller's source.
func OursLive(cfg Config) (*Peer, error) {
	return transport("agrenting, live credential", source(cfg), options(cfg))
}

// OursSession returns the Transport with sessions that it exchanges itself.
func OursSession(cfg Config) (*Peer, error) {
	return transport("agrenting, session", agrenting.Static(agrenting.APIKey(key)), options(cfg, agrenting.WithSession()))
}

func client(name string, opts []agrenting.Option) (*Peer, error) {
	c, err := agrenting.New(opts...)
	if err != nil {
		return nil, err
	}
	p := OverClient(name, c.HTTPClient())
	p.Close = func() { _ = c.Close() }
	p.Read = func(ctx context.Context) error {
		_, err := c.Credential(ctx)
		return err
	}
	return p, nil
}

// OursClient returns a Client with sessions. Renewal ahead of the expiry,
// resending, and retries are on by default.
func OursClient(cfg Config) (*Peer, error) {
	return client("agrenting", options(cfg, agrenting.WithCredential(agrenting.APIKey(key)), agrenting.WithSession()))
}

// OursBehind is like OursClient, but never renews ahead of the expiry.
func OursBehind(cfg Config) (*Peer, error) {
	return client("agrenting, never ahead", options(cfg, agrenting.WithCredential(agrenting.APIKey(key)),
		agrenting.WithSession(agrenting.SessionPolicy{Window: -1})))
}

// OursAll returns a Client with all features: sessions, retries, an agent, a
// logger, and an observer.
func OursAll(cfg Config) (*Peer, error) {
	return client("agrenting, everything on", options(cfg,
		agrenting.WithCredential(agrenting.APIKey(key)),
		agrenting.WithSession(),
		agrenting.WithAgentID("did:agrenting:bench"),
		agrenting.WithLogger(slog.New(slog.DiscardHandler)),
		agrenting.WithObserver(func(agrenting.Event) {}),
	))
}
