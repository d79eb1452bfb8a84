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

// Nodes configures a platform with several nodes, some of which recognize keys and
// sessions late, such as Nodes{KeyLag: 2 * time.Second}. With the zero value, no
// node lags. Most programs only set KeyLag or RevocationLag.
type Nodes struct {
	// Count is the number of nodes, which share the requests evenly. Zero means one.
	Count int
	// Lagging is the number of nodes that lag. Zero means all of them.
	Lagging int
	// KeyLag is how long a lagging node responds with 401 to a new key, such as 3 s. It
	// applies to keys that are created, rotated, or registered over HTTP. All nodes
	// accept keys of [Server.NewKey] and user tokens at once.
	KeyLag time.Duration
	// SessionLag is how long a lagging node responds with 401 to a new session of
	// authenticate, such as 3 s. All nodes accept sessions of [Server.NewSession] at
	// once.
	SessionLag time.Duration
	// RevocationLag is how long a lagging node still accepts a key or user token that
	// is revoked, or a session that is ended before it expires, such as 1 min. During
	// this time, a revoked key can be exchanged for a session, but cannot be rotated.
	RevocationLag time.Duration
	// ByConnection chooses a node for each connection instead of each request, like a
	// load balancer below HTTP. If [Server.Handler] is mounted in another server, the
	// address of the client determines the node.
	ByConnection bool
}

// WithNodes makes a platform with several nodes, some of which lag. In this example,
// one node in ten does not accept a new key or session for its first 3 seconds:
//
//	srv := agrentingtest.NewServer(agrentingtest.WithNodes(agrentingtest.Nodes{
//		Count: 10, Lagging: 1, KeyLag: 3 * time.Second, SessionLag: 3 * time.Second,
//	}))
//
// In this example, all nodes learn of a new key after 2 seconds and accept a revoked
// key for one more minute:
//
//	agrentingtest.WithNodes(agrentingtest.Nodes{KeyLag: 2 * time.Second, RevocationLag: time.Minute})
//
// Nodes are chosen at random, in the same way in each run; see [WithSeed].
// [Server.Verify] and [Server.Guard] choose a node for each call. [Server.KeyAlive]
// and [Server.LiveKeys] do not lag.
func WithNodes(n Nodes) Option { return func(c *config) { c.nodes = n } }

// nodes determines which requests reach a lagging node.
type nodes struct {
	cfg  Nodes
	seed uint64

	mu     sync.Mutex
	random *rand.Rand
}

// nodesStream separates the random choice of nodes from the choices of faults.
const nodesStream = 0

func newNodes(n Nodes, seed uint64) *nodes {
	n.Count = max(n.Count, 1)
	if n.Lagging <= 0 {
		n.Lagging = n.Count
	}
	return &nodes{cfg: n, seed: seed, random: newRandom(seed, nodesStream)}
}

// choose chooses a node and reports whether it lags.
func (n *nodes) choose() bool {
	if n.cfg.Lagging >= n.cfg.Count {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.random.IntN(n.cfg.Count) < n.cfg.Lagging
}

// lagging reports whether a request reaches a lagging node.
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
// that the credential is live. A lagging node accepts the credential from known
// until RevocationLag after revoked.
func (n *nodes) accept(known, revoked, now time.Time, lagging bool) bool {
	if !lagging {
		return revoked.IsZero()
	}
	return !now.Before(known) && (revoked.IsZero() || now.Before(revoked.Add(n.cfg.RevocationLag)))
}
