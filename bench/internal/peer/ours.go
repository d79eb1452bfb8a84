package peer

import (
	"context"
	"log/slog"

	"github.com/agrenting/agrenting-go"
)

const key = "key-of-the-benchmark"

// options are what every client of ours here starts from.
func options(cfg Config, more ...agrenting.Option) []agrenting.Option {
	opts := []agrenting.Option{agrenting.WithTransport(cfg.Base), agrenting.WithoutEnvironment()}
	if cfg.URL != "" {
		opts = append(opts, agrenting.WithBaseURL(cfg.URL))
	}
	return append(opts, more...)
}

// source asks the exchange for sessions that expire.
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

// OursStatic is the Transport with a key that never changes.
func OursStatic(cfg Config) (*Peer, error) {
	return transport("agrenting, static key", agrenting.Static(agrenting.APIKey(key)), options(cfg))
}

// OursLive is the Transport with a cached credential that expires, from a
// source of the caller's.
func OursLive(cfg Config) (*Peer, error) {
	return transport("agrenting, live credential", source(cfg), options(cfg))
}

// OursSession is the Transport with sessions that it exchanges itself.
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

// OursClient is a Client with sessions: renewal ahead, replay and retries are on
// by default.
func OursClient(cfg Config) (*Peer, error) {
	return client("agrenting", options(cfg, agrenting.WithCredential(agrenting.APIKey(key)), agrenting.WithSession()))
}

// OursBehind is the same, but told never to renew ahead.
func OursBehind(cfg Config) (*Peer, error) {
	return client("agrenting, never ahead", options(cfg, agrenting.WithCredential(agrenting.APIKey(key)),
		agrenting.WithSession(agrenting.SessionPolicy{Window: -1})))
}

// OursAll is a Client with everything on: sessions, retries, an agent, a logger
// and an observer.
func OursAll(cfg Config) (*Peer, error) {
	return client("agrenting, everything on", options(cfg,
		agrenting.WithCredential(agrenting.APIKey(key)),
		agrenting.WithSession(),
		agrenting.WithAgentID("did:agrenting:bench"),
		agrenting.WithLogger(slog.New(slog.DiscardHandler)),
		agrenting.WithObserver(func(agrenting.Event) {}),
	))
}
