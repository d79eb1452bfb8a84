package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// sandboxFaults are the flags of the sandbox for what goes wrong.
type sandboxFaults struct {
	Stray401      float64       `name:"stray-401" placeholder:"SHARE" help:"Share of all requests except authenticate that get a stray 401, such as 0.05."`
	Lag           time.Duration `placeholder:"DURATION" help:"How long the platform's nodes do not know a new key or session, such as 3s."`
	RevocationLag time.Duration `placeholder:"DURATION" help:"How long the nodes still accept a revoked credential or ended session."`
	LaggingNodes  string        `placeholder:"N/M" help:"How many of the nodes lag behind, such as 1/10; all by default."`
}

// options returns the options of a platform with the faults.
func (f *sandboxFaults) options() ([]agrentingtest.Option, error) {
	if !(f.Stray401 >= 0 && f.Stray401 <= 1) { // also if it is not a number
		return nil, usage("", "invalid --stray-401 %v (want a share from 0 to 1, such as 0.05)", f.Stray401)
	}
	if f.Lag < 0 || f.RevocationLag < 0 {
		return nil, usage("", "--lag and --revocation-lag cannot be negative")
	}
	nodes := agrentingtest.Nodes{KeyLag: f.Lag, SessionLag: f.Lag, RevocationLag: f.RevocationLag}
	if f.LaggingNodes != "" {
		if f.Lag == 0 && f.RevocationLag == 0 {
			return nil, usage("add --lag or --revocation-lag", "--lagging-nodes has no effect without a lag")
		}
		// The %c finds what follows the numbers.
		n, _ := fmt.Sscanf(f.LaggingNodes, "%d/%d%c", &nodes.Lagging, &nodes.Count, new(rune))
		if n != 2 || nodes.Lagging < 1 || nodes.Lagging > nodes.Count {
			return nil, usage("", "invalid --lagging-nodes %q (want N/M, such as 1/10)", discreet(visible(f.LaggingNodes)))
		}
	}
	return []agrentingtest.Option{agrentingtest.WithNodes(nodes)}, nil
}

// script adds the faults of single requests.
func (f *sandboxFaults) script(srv *agrentingtest.Server) {
	if f.Stray401 > 0 {
		srv.Fault("!/api/v1/auth/authenticate", agrentingtest.Status(http.StatusUnauthorized, "").Share(f.Stray401))
	}
}

// sandboxLimits are the flags of the sandbox for rate limits.
type sandboxLimits struct {
	NoRateLimits bool          `help:"Lift rate limits and the lockout of authenticate."`
	RequestLimit int           `placeholder:"N" help:"How many requests an agent or user may send in a minute, 100 by default."`
	AuthLimit    int           `placeholder:"N" help:"How many calls of authenticate an address may send in a minute, 10 by default."`
	Lockout      time.Duration `placeholder:"DURATION" help:"How long an address is locked out after more calls of authenticate, 5m by default."`
}

// option returns the option of a platform with the limits.
func (l *sandboxLimits) option() (agrentingtest.Option, error) {
	limits := agrentingtest.RateLimits{General: l.RequestLimit, Authenticate: l.AuthLimit, Lockout: l.Lockout}
	switch {
	case min(l.RequestLimit, l.AuthLimit) < 0 || l.Lockout < 0:
		return nil, usage("", "--request-limit, --auth-limit, and --lockout cannot be negative")
	case l.NoRateLimits && limits != (agrentingtest.RateLimits{}):
		return nil, usage("", "--no-rate-limits cannot be combined with --request-limit, --auth-limit, or --lockout")
	case l.NoRateLimits:
		return agrentingtest.WithoutRateLimits(), nil
	default:
		return agrentingtest.WithRateLimits(limits), nil
	}
}
