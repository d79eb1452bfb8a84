package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// sandboxFaults has the flags of the sandbox for faults.
type sandboxFaults struct {
	Chaos         share         `placeholder:"SHARE" help:"Share of all requests that get a random fault, such as 5% or 0.05: a stray 401, 502, 503, or 504, a lost connection, a slow or truncated response."`
	Seed          *uint64       `placeholder:"N" help:"Repeat the random choices of a run that has printed this seed, if the requests arrive in the same order."`
	Stray401      share         `name:"stray-401" placeholder:"SHARE" help:"Share of all requests except authenticate that get a stray 401, such as 5%."`
	Lag           time.Duration `placeholder:"DURATION" help:"How long the nodes of the platform reject a new key or session, such as 3s."`
	RevocationLag time.Duration `placeholder:"DURATION" help:"How long the nodes still accept a revoked credential or ended session."`
	LaggingNodes  string        `placeholder:"N/M" help:"How many of the nodes lag behind, such as 1/10; all by default."`
}

// options returns the options of a platform with the faults.
func (f *sandboxFaults) options() ([]agrentingtest.Option, error) {
	if f.Lag < 0 || f.RevocationLag < 0 {
		return nil, usage("", "--lag and --revocation-lag cannot be negative")
	}
	nodes := agrentingtest.Nodes{KeyLag: f.Lag, SessionLag: f.Lag, RevocationLag: f.RevocationLag}
	if f.LaggingNodes != "" {
		if f.Lag == 0 && f.RevocationLag == 0 {
			return nil, usage("add --lag or --revocation-lag", "--lagging-nodes has no effect without a lag")
		}
		// %c matches any text after the numbers.
		n, _ := fmt.Sscanf(f.LaggingNodes, "%d/%d%c", &nodes.Lagging, &nodes.Count, new(rune))
		if n != 2 || nodes.Lagging < 1 || nodes.Lagging > nodes.Count {
			return nil, usage("", "invalid --lagging-nodes %q (want N/M, such as 1/10)", discreet(visible(f.LaggingNodes)))
		}
	}
	opts := []agrentingtest.Option{agrentingtest.WithNodes(nodes), agrentingtest.WithChaos(float64(f.Chaos))}
	if f.Seed != nil {
		opts = append(opts, agrentingtest.WithSeed(*f.Seed))
	}
	return opts, nil
}

// drawSeed sets a random seed if the run makes random choices and no seed is given. The seed is
// short enough to type.
func (f *sandboxFaults) drawSeed() {
	if f.Seed == nil && f.random() {
		seed := uint64(rand.Uint32()) // #nosec G404 -- it is printed
		f.Seed = &seed
	}
}

// random reports whether the run makes random choices.
func (f *sandboxFaults) random() bool { return f.Chaos > 0 || f.Stray401 > 0 || f.LaggingNodes != "" }

// share is a part of all requests.
type share float64

// UnmarshalText reads a share, such as "5%" or "0.05".
func (s *share) UnmarshalText(text []byte) error {
	number, percent := strings.CutSuffix(string(text), "%")
	v, err := strconv.ParseFloat(number, 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v >= 0 && v <= 1) { // also true for NaN
		return fmt.Errorf("invalid share %q (want a share such as 5%% or 0.05)", visible(string(text)))
	}
	*s = share(v)
	return nil
}

// String returns the share in percent.
func (s share) String() string { return strconv.FormatFloat(float64(s)*100, 'g', 4, 64) + "%" }

// script adds the faults of single requests.
func (f *sandboxFaults) script(srv *agrentingtest.Server) {
	if f.Stray401 > 0 {
		srv.Fault("!/api/v1/auth/authenticate", agrentingtest.Status(http.StatusUnauthorized, "").Share(float64(f.Stray401)))
	}
}

// sandboxLimits has the flags of the sandbox for rate limits.
type sandboxLimits struct {
	NoRateLimits bool          `help:"Disable rate limits and the lockout of the authenticate endpoint."`
	RequestLimit int           `placeholder:"N" help:"How many requests an agent or user may send per minute, 100 by default."`
	AuthLimit    int           `placeholder:"N" help:"How many calls of the authenticate endpoint an address may make per minute, 10 by default."`
	Lockout      time.Duration `placeholder:"DURATION" help:"How long an address is locked out after more calls of the authenticate endpoint, 5m by default."`
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

// choices returns how to repeat the random choices of the run.
func (f *sandboxFaults) choices() string {
	if f.Chaos == 0 {
		return fmt.Sprintf("Repeat its random choices with --seed %d.", *f.Seed)
	}
	return fmt.Sprintf("Of all requests, %s get a random fault. Repeat the choices with --seed %d.", f.Chaos, *f.Seed)
}
