package agrentingtest_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func BenchmarkRequests(b *testing.B) {
	for name, opts := range map[string][]agrentingtest.Option{
		"socket": nil,
		"memory": {agrentingtest.InMemory()},
		"TLS":    {agrentingtest.WithTLS()},
	} {
		b.Run(name, func(b *testing.B) {
			s := agrentingtest.NewServer(append(opts, agrentingtest.WithoutRateLimits())...)
			defer s.Close()
			key := s.NewKey(s.NewAgent(nil, agrentingtest.AgentConfig{}).ID)
			client := &http.Client{Transport: s.Transport()}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, s.URL+tasksPath, http.NoBody)
					require.NoError(b, err)
					req.Header["X-Api-Key"] = []string{key.Secret}
					resp, err := client.Do(req)
					require.NoError(b, err)
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			})
		})
	}
}

// A server starts for each test.
func BenchmarkNewServer(b *testing.B) {
	for name, opts := range map[string][]agrentingtest.Option{
		"socket": nil,
		"memory": {agrentingtest.InMemory()},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				agrentingtest.NewServer(opts...).Close()
			}
		})
	}
}
