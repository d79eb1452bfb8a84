package bench

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agrenting/agrenting-go/bench/internal/peer"
)

// transports are compared as RoundTrippers.
func transports() []peer.Builder {
	return []peer.Builder{
		{Name: "bare", Build: peer.Bare},
		{Name: "floor", Build: peer.Least},
		{Name: "floor-checked", Build: peer.LeastChecked},
		{Name: "ours-static", Build: peer.OursStatic},
		{Name: "ours-live", Build: peer.OursLive},
		{Name: "ours-session", Build: peer.OursSession},
		{Name: "retryablehttp", Build: peer.Retryable},
		{Name: "ghinstallation", Build: peer.GitHub},
		{Name: "oauth2", Build: peer.OAuth2},
		{Name: "cloud-middleware", Build: peer.CloudMiddleware},
		{Name: "cloud-quiet", Build: peer.CloudQuiet},
		{Name: "cloud", Build: peer.CloudDefault},
	}
}

// calls are compared as whole calls. The request is built again for each call.
func calls() []peer.Builder {
	return []peer.Builder{
		{Name: "bare", Build: peer.Bare},
		{Name: "floor", Build: peer.Least},
		{Name: "ours-session", Build: peer.OursSession},
		{Name: "ours-all", Build: peer.OursAll},
		{Name: "retryablehttp", Build: peer.Retryable},
		{Name: "gophercloud", Build: peer.Gophercloud},
		{Name: "ghinstallation", Build: peer.GitHub},
		{Name: "oauth2", Build: peer.OAuth2},
		{Name: "azcore-key", Build: peer.AzureKey},
		{Name: "azcore-bearer", Build: peer.AzureBearer},
		{Name: "cloud-middleware", Build: peer.CloudMiddleware},
		{Name: "cloud", Build: peer.CloudDefault},
	}
}

// readers have a cached credential that can be read.
func readers() []peer.Builder {
	return []peer.Builder{
		{Name: "atomic", Build: atomicReader},
		{Name: "ours", Build: peer.OursClient},
		{Name: "oauth2", Build: peer.OAuth2},
		{Name: "ghinstallation", Build: peer.GitHub},
		{Name: "cloud", Build: peer.CloudQuiet},
		{Name: "gophercloud", Build: peer.Gophercloud},
	}
}

// atomicReader is the least that reading an expiring value costs: an atomic
// load and a comparison with the clock.
func atomicReader(cfg peer.Config) (*peer.Peer, error) {
	var p atomic.Pointer[peer.Token]
	t, err := cfg.Exchange(context.Background())
	if err != nil {
		return nil, err
	}
	p.Store(&t)
	return &peer.Peer{Name: "atomic", Close: func() {}, Read: func(context.Context) error {
		if t := p.Load(); !time.Now().Before(t.Expires) {
			return context.DeadlineExceeded
		}
		return nil
	}}, nil
}

func build(tb testing.TB, b peer.Builder) *peer.Peer {
	tb.Helper()
	p, err := b.Build(peer.Config{
		Base: peer.Stub{}, URL: "https://agrenting.com", Exchange: peer.Fixed, Early: time.Minute,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

// six headers, as a request of an SDK has them.
func sixHeaders() http.Header {
	return http.Header{
		"Accept":            {"application/json"},
		"Accept-Language":   {"en"},
		"Content-Type":      {"application/json"},
		"User-Agent":        {"bench/1.0"},
		"X-Idempotency-Key": {"3f0c3f0e-6b0a-4f43-9f1c-0b6f4c1d2e3a"},
		"X-Request-Id":      {"9b2e0a52-5a55-4d2b-8a2e-7f1a4b6c8d90"},
	}
}

// body is rewound between requests, so that making bodies costs nothing. Like
// the bodies of [http.NewRequest] it can be read and closed and nothing else;
// GetBody is how to have it again.
type body struct{ r bytes.Reader }

func (b *body) Read(p []byte) (int, error) { return b.r.Read(p) }

func (*body) Close() error { return nil }

type request struct {
	*http.Request
	body *body
	data []byte
}

func newRequest(tb testing.TB, data []byte) *request {
	tb.Helper()
	r := &request{data: data}
	method := http.MethodGet
	var rd io.Reader
	if data != nil {
		method, r.body = http.MethodPost, new(body)
		rd = r.body
	}
	req, err := http.NewRequestWithContext(tb.Context(), method, peer.Target, rd)
	if err != nil {
		tb.Fatal(err)
	}
	req.Header = sixHeaders()
	if data != nil {
		req.ContentLength = int64(len(data))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	}
	r.Request = req
	return r
}

// send makes one round trip, as net/http would: the response body is closed.
func (r *request) send(rt http.RoundTripper) error {
	if r.body != nil {
		r.body.r.Reset(r.data)
		r.Body = r.body
	}
	resp, err := rt.RoundTrip(r.Request)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// payloads are what is sent.
var payloads = []struct {
	name string
	size int
}{{"GET", 0}, {"POST1K", 1 << 10}, {"POST16M", 16 << 20}}

func payload(size int) []byte {
	if size == 0 {
		return nil
	}
	return make([]byte, size)
}

func BenchmarkTransport(b *testing.B) {
	for _, p := range payloads {
		data := payload(p.size)
		for _, t := range transports() {
			b.Run(p.name+"/"+t.Name, func(b *testing.B) {
				rt := build(b, t).Transport
				r := newRequest(b, data)
				if err := r.send(rt); err != nil { // fills the cache
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if err := r.send(rt); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkTransportParallel(b *testing.B) {
	for _, p := range payloads[:2] {
		data := payload(p.size)
		for _, t := range transports() {
			b.Run(p.name+"/"+t.Name, func(b *testing.B) {
				rt := build(b, t).Transport
				if err := newRequest(b, data).send(rt); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					r := newRequest(b, data)
					for pb.Next() {
						if err := r.send(rt); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}

func call(p *peer.Peer, header http.Header, data []byte) error {
	method := http.MethodGet
	if data != nil {
		method = http.MethodPost
	}
	resp, err := p.Call(context.Background(), method, peer.Target, header, data)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func BenchmarkCall(b *testing.B) {
	header := sixHeaders()
	for _, p := range payloads {
		data := payload(p.size)
		for _, c := range calls() {
			b.Run(p.name+"/"+c.Name, func(b *testing.B) {
				pr := build(b, c)
				if err := call(pr, header, data); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if err := call(pr, header, data); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkCallParallel(b *testing.B) {
	header := sixHeaders()
	for _, c := range calls() {
		b.Run("GET/"+c.Name, func(b *testing.B) {
			pr := build(b, c)
			if err := call(pr, header, nil); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := call(pr, header, nil); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkCredential reads a cached credential that expires, but not soon.
func BenchmarkCredential(b *testing.B) {
	for _, r := range readers() {
		b.Run(r.Name, func(b *testing.B) {
			read := build(b, r).Read
			ctx := b.Context()
			if err := read(ctx); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := read(ctx); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
