//go:build unix

package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/proxy"
)

// BenchmarkProxy compares the proxy with a bare reverse proxy that sets a header,
// over the same kind of transport, alternately and in one run. Higher is better for
// x-throughput, lower for x-p99; it logs PASS or MISS for both. Bodies are kept so that
// they can be sent again.
func BenchmarkProxy(b *testing.B) {
	b.Run("GET", func(b *testing.B) { compare(b, http.MethodGet, nil) })
	b.Run("POST_1KiB", func(b *testing.B) { compare(b, http.MethodPost, bytes.Repeat([]byte("x"), 1<<10)) })
}

func compare(b *testing.B, method string, body []byte) {
	b.Helper()
	answer := []byte(`{"data":{"status":"ok"}}`)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Api-Key") == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != int64(len(body)) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}))
	defer upstream.Close()
	base, err := url.Parse(upstream.URL)
	require.NoError(b, err)

	plainBase := proxyBase()
	defer plainBase.CloseIdleConnections()
	bare := httptest.NewServer(&httputil.ReverseProxy{
		Transport: plainBase,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(base)
			r.Out.Header.Set("X-Api-Key", "made-up-key")
		},
	})
	defer bare.Close()

	ownBase := proxyBase()
	defer ownBase.CloseIdleConnections()
	client, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(upstream.URL),
		agrenting.WithCredential(agrenting.APIKey("made-up-key")), agrenting.WithTransport(ownBase))
	require.NoError(b, err)
	defer client.Close()
	rule, err := proxy.ParseRule("* /api/v1/*")
	require.NoError(b, err)
	own := httptest.NewUnstartedServer(nil)
	own.Config.Handler = proxy.New(proxy.Config{
		Upstream: base, Transport: client.Transport(), Hosts: proxy.Hosts(own.Listener), Token: "made-up-token", Allow: []proxy.Rule{rule},
		Socket: client.SocketHTTPClient().Transport, ReplayLimit: 1 << 20, ReplayMemory: replayMemory, Timeout: time.Minute,
	})
	own.Start()
	defer own.Close()

	const callers, turns = 16, 8
	var took, used [2]time.Duration
	var latencies [2][]time.Duration
	var sent [2]int
	for b.Loop() {
		for turn := range turns {
			for i := range 2 {
				which := (turn + i) % 2 // neither always comes first
				target := []string{bare.URL, own.URL}[which]
				n := 200
				before := cpuTime(b)
				d, l := load(b, method, target, body, callers, n)
				cpu := cpuTime(b) - before
				if turn == 0 {
					continue // connections are made
				}
				took[which] += d
				used[which] += cpu
				sent[which] += callers * n
				latencies[which] = append(latencies[which], l...)
			}
		}
	}
	var rate, p99 [2]float64
	for i := range rate {
		rate[i] = float64(sent[i]) / took[i].Seconds()
		slices.Sort(latencies[i])
		p99[i] = float64(latencies[i][len(latencies[i])*99/100].Microseconds())
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate[0], "bare-req/s")
	b.ReportMetric(rate[1], "proxy-req/s")
	b.ReportMetric(rate[1]/rate[0], "x-throughput")
	b.ReportMetric(used[1].Seconds()/used[0].Seconds(), "x-cpu")
	b.ReportMetric(p99[0], "bare-p99-µs")
	b.ReportMetric(p99[1], "proxy-p99-µs")
	b.ReportMetric(p99[1]/p99[0], "x-p99")
	b.Logf("%s: %.2f of the throughput, wanted at least %.1f", verdict(rate[1] >= leastThroughput*rate[0]), rate[1]/rate[0], leastThroughput)
	b.Logf("%s: %.2f of the p99, wanted at most %.1f", verdict(p99[1] <= mostP99*p99[0]), p99[1]/p99[0], mostP99)
}

// The limits of the proxy relative to the bare one.
const (
	leastThroughput = 0.9
	mostP99         = 1.2
)

func verdict(kept bool) string {
	if kept {
		return "PASS"
	}
	return "MISS"
}

// cpuTime returns the processor time of callers, proxies, and platform together. Unlike the
// throughput, it does not depend on other load of the machine.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// load lets callers send n requests each. It returns the total time and the time of each request.
func load(b *testing.B, method, target string, body []byte, callers, n int) (time.Duration, []time.Duration) {
	b.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: callers}
	defer transport.CloseIdleConnections()
	var mu sync.Mutex
	var all []time.Duration
	var running sync.WaitGroup
	start := time.Now()
	for range callers {
		running.Go(func() {
			own := make([]time.Duration, 0, n)
			for range n {
				began := time.Now()
				req, err := http.NewRequestWithContext(b.Context(), method, target+"/api/v1/tasks", bytes.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				req.Header.Set("X-Proxy-Token", "made-up-token")
				resp, err := transport.RoundTrip(req)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					b.Errorf("status %d", resp.StatusCode)
					return
				}
				own = append(own, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, own...)
		})
	}
	running.Wait()
	return time.Since(start), all
}
