package agrentingtest

import (
	"context"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// Nodes describes a platform of several nodes, some of which learn late of keys
// and sessions. In the zero value, nothing is late.
type Nodes struct {
	// Count is how many nodes share the requests evenly. Zero means one.
	Count int
	// Lagging is how many of them lag behind. Zero means all of them.
	Lagging int
	// KeyLag is how long a lagging node responds with 401 to a new key. It
	// applies to keys that are created, rotated, or registered over HTTP. Keys of
	// [Server.NewKey] are known at once, and so are user tokens.
	KeyLag time.Duration
	// SessionLag is how long a lagging node responds with 401 to a new session
	// of authenticate. Sessions of [Server.NewSession] are known at once.
	SessionLag time.Duration
	// RevocationLag is how long a lagging node still accepts a key or user token
	// that is revoked, or a session that is ended before it expires. A revoked
	// key can be exchanged for a session during this time, but cannot be rotated.
	RevocationLag time.Duration
	// ByConnection chooses a node for each connection instead of each request, as
	// a load balancer below HTTP does. In a server that [Server.Handler] is
	// mounted in, the address of the client decides.
	ByConnection bool
}

// WithNodes makes a platform of several nodes, some of which lag behind. One node
// in ten does not know a new key or session for its first 3 seconds:
//
//	srv := agrentingtest.NewServer(agrentingtest.WithNodes(agrentingtest.Nodes{
//		Count: 10, Lagging: 1, KeyLag: 3 * time.Second, SessionLag: 3 * time.Second,
//	}))
//
// All nodes need 2 seconds to learn of a new key, and accept a revoked one for a
// minute:
//
//	agrentingtest.WithNodes(agrentingtest.Nodes{KeyLag: 2 * time.Second, RevocationLag: time.Minute})
//
// Nodes are chosen at random, in the same way in each run; see [WithSeed].
// [Server.Verify] and [Server.Guard] ask a node that is chosen for each call. Keys
// are alive or revoked at once for [Server.KeyAlive] and [Server.LiveKeys].
func WithNodes(n Nodes) Option { return func(c *config) { c.nodes = n } }

// nodes chooses which requests reach a node that lags behind.
type nodes struct {
	cfg  Nodes
	seed uint64

	mu     sync.Mutex
	random *rand.Rand
}

// nodesStream keeps the choice of nodes apart from those of faults.
const nodesStream = 0

func newNodes(n Nodes, seed uint64) *nodes {
	n.Count = max(n.Count, 1)
	if n.Lagging <= 0 {
		n.Lagging = n.Count
	}
	return &nodes{cfg: n, seed: seed, random: newRandom(seed, nodesStream)}
}

// choose chooses a node and reports whether it lags behind.
func (n *nodes) choose() bool {
	if n.cfg.Lagging >= n.cfg.Count {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.random.IntN(n.cfg.Count) < n.cfg.Lagging
}

// lagging reports whether a request reaches a node that lags behind.
func (n *nodes) lagging(r *http.Request) bool {
	if !n.cfg.ByConnection {
		return n.choose()
	}
	if lags, ok := r.Context().Value(laggingKey{}).(bool); ok {
		return lags
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(r.RemoteAddr)) // never fails
	return newRandom(n.seed, h.Sum64()).IntN(n.cfg.Count) < n.cfg.Lagging
}

type laggingKey struct{}

// connContext chooses the node of a connection.
func (n *nodes) connContext(ctx context.Context, _ net.Conn) context.Context {
	if !n.cfg.ByConnection {
		return ctx
	}
	return context.WithValue(ctx, laggingKey{}, n.choose())
}

// accept reports whether a node accepts a credential at a time. A zero revoked means
// that the credential is alive. A node that lags behind accepts it from known until
// RevocationLag after revoked.
func (n *nodes) accept(known, revoked, now time.Time, lagging bool) bool {
	if !lagging {
		return revoked.IsZero()
	}
	return !now.Before(known) && (revoked.IsZero() || now.Before(revoked.Add(n.cfg.RevocationLag)))
}
