// Package bench holds nothing but benchmarks and checks: this SDK beside other
// Go clients that manage credentials, and beside the least that the contract
// of [net/http.RoundTripper] allows, all in one run on one machine.
//
//	go run ./cmd/report          # everything; rewrites docs/benchmarks.md
//	go run ./cmd/report -quick   # a smoke test of a minute
//	go run ./cmd/stampede        # many callers around an expiry, an outage, a revocation
//	go test -bench .             # the benchmarks alone
//	go test                      # the counts: allocations, bytes, exchanges
//
// It is a module of its own, outside the workspace, so that no user of the SDK
// ever sees its dependencies: with GOWORK=off in the environment.
package bench
