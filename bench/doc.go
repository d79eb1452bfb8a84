// Package bench has benchmarks and checks. They compare this SDK with other Go clients
// that manage credentials, and with two floors, in one run on one machine. The first floor
// is the least that [net/http.RoundTripper] allows for adding a header. The second also
// checks the names of the caller's headers.
//
//	go run ./cmd/report          # everything; rewrites docs/benchmarks.md
//	go run ./cmd/report -quick   # a smoke test of a minute
//	go run ./cmd/stampede        # many callers at expiries, revocations, deadlines, and outages
//	go test -bench .             # the benchmarks alone
//	go test                      # the counts: allocations, bytes, exchanges
//
// It is a separate module outside the workspace, so that users of the SDK do not get its
// dependencies. Set GOWORK=off.
package bench
