package retry_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// What go-retryablehttp does unless told otherwise, and this SDK must not do.

func TestDroppedPOSTIsResentOnlyWithIdempotencyKey(t *testing.T) {
	t.Parallel()

	for _, key := range []string{"", "the-key"} {
		t.Run("key "+key, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var keys, bodies []string
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				mu.Lock()
				keys, bodies = append(keys, r.Header.Get("X-Idempotency-Key")), append(bodies, string(b))
				mu.Unlock()
				conn, _, err := http.NewResponseController(w).Hijack()
				if err == nil {
					_ = conn.Close()
				}
			}))
			t.Cleanup(srv.Close)
			tr := sdktest.TransportOver(t, sdktest.Loopback(t), agrenting.Static(agrenting.APIKey("k1")), agrenting.WithBaseURL(srv.URL), sdktest.Sleepless)
			req := sdktest.Request(t, http.MethodPost, srv.URL+"/x", strings.NewReader("body"))
			want := 1
			if key != "" {
				req.Header.Set("X-Idempotency-Key", key)
				want = 4
			}
			err := sdktest.Failure(tr, req)
			require.ErrorIs(t, err, io.EOF)
			mu.Lock()
			defer mu.Unlock()
			require.Len(t, keys, want)
			for i := range keys {
				assert.Equal(t, key, keys[i])
				assert.Equal(t, "body", bodies[i])
			}
		})
	}
}

func TestDoSendsSameKeyInEachAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var keys []string
		c := sdktest.ClientOver(t, sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			sdktest.ReadBody(r)
			keys = append(keys, r.Header.Get("X-Idempotency-Key"))
			return sdktest.Reply(503, ""), nil
		}), agrenting.Static(agrenting.APIKey("k1")))
		for _, method := range []string{http.MethodPost, http.MethodPut} {
			_, err := c.Do(t.Context(), method, "/x", "body", nil)
			require.ErrorIs(t, err, agrenting.ErrServer)
		}
		require.Len(t, keys, 8)
		assert.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, keys[0])
		for i := range 4 {
			assert.Equal(t, keys[0], keys[i])
			assert.Equal(t, keys[4], keys[4+i])
		}
		assert.NotEqual(t, keys[0], keys[4])
	})
}

func TestBodiesAreReopenedAndNotBuffered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got []string
		tr := sdktest.TransportOver(t, sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			got = append(got, sdktest.ReadBody(r))
			return sdktest.Reply(503, ""), nil
		}), agrenting.Static(agrenting.APIKey("k1")))
		first := sdktest.NewSpyBody("attempt 1")
		req := sdktest.Request(t, http.MethodPut, "/x", first)
		made := 1
		req.GetBody = func() (io.ReadCloser, error) {
			made++
			return sdktest.NewSpyBody(fmt.Sprint("attempt ", made)), nil
		}
		resp, err := tr.RoundTrip(req)
		require.NoError(t, err)
		readAll(t, resp)
		assert.Equal(t, []string{"attempt 1", "attempt 2", "attempt 3", "attempt 4"}, got)
		assert.Equal(t, 4, made)
		assert.Equal(t, 1, first.Closed())
	})
}

func TestLostBodyEndsRetries(t *testing.T) {
	t.Parallel()

	for _, code := range []int{503, 0} {
		synctest.Test(t, func(t *testing.T) {
			base := sdktest.Answers(code)
			req := sdktest.Request(t, http.MethodPut, "/x", sdktest.NewSpyBody("body"))
			req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("the file is gone") }
			resp, err := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1"))).RoundTrip(req)
			assert.Equal(t, 1, base.Count())
			if code == 0 {
				assert.Equal(t, io.ErrUnexpectedEOF, err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "Service Unavailable", readAll(t, resp), "the response at hand is not thrown away")
		})
	}
}

func TestUnusedBodyIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		second := sdktest.NewSpyBody("body")
		req := sdktest.Request(t, http.MethodPut, "/x", sdktest.NewSpyBody("body"))
		req.GetBody = func() (io.ReadCloser, error) { return second, nil }
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Nanosecond, cancel)
		tr := sdktest.TransportOver(t, sdktest.Answers(503), agrenting.Static(agrenting.APIKey("k1")),
			agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: time.Hour, MaxDelay: time.Hour}))
		err := sdktest.Failure(tr, req.WithContext(ctx))
		require.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, 1, second.Closed())
	})
}

func TestRetriesFollowNoRedirect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := sdktest.Recorder{Then: func(n int, _ sdktest.Seen) *http.Response {
			if n == 1 {
				return sdktest.Reply(503, "")
			}
			return sdktest.Reply(302, "moved", "Location", "https://evil.test/")
		}}
		tr := sdktest.TransportOver(t, &base, agrenting.Static(agrenting.APIKey("k1")))
		resp, err := tr.RoundTrip(sdktest.Request(t, http.MethodGet, "/x", nil))
		require.NoError(t, err)
		assert.Equal(t, 302, resp.StatusCode)
		assert.Equal(t, "moved", readAll(t, resp))
		assert.Len(t, base.Requests(), 2)
	})
}

// slogTo logs everything to w.
func slogTo(w io.Writer) agrenting.Option {
	return agrenting.WithLogger(slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})))
}

func TestNoErrorAndNoRecordShowsAQuery(t *testing.T) {
	t.Parallel()

	const secret = "qu3ry-s3cret"
	wrapped := &url.Error{Op: "Get", URL: sdktest.APIURL + "/x?plain=" + secret, Err: io.ErrUnexpectedEOF}
	for name, base := range map[string]http.RoundTripper{
		"dropped": sdktest.Answers(0),
		"busy":    sdktest.Answers(503),
		"refused": sdktest.Answers(401),
		"pending": sdktest.Answers(409),
		"a base that names URLs": sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) {
			return nil, fmt.Errorf("proxy: %w", wrapped)
		}),
		"a base that is a client": sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) { return nil, wrapped }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				src := sdktest.NewSource("k1-" + secret)
				c := sdktest.ClientOver(t, base, src, slogTo(&log))
				for _, method := range []string{http.MethodGet, http.MethodPost} {
					_, err := c.Do(t.Context(), method, "/x?plain="+secret, nil, nil, agrenting.CallQuery(url.Values{"other": {secret}}))
					require.Error(t, err)
					assert.NotContains(t, err.Error(), secret)
				}
				_ = c.Close() // ends what logs
				assert.Contains(t, log.String(), "path=/x")
				assert.NotContains(t, log.String(), secret)
			})
		})
	}
}

// TestRetriesInASilentChild is the child of the next test. It is a test of its
// own, so that a child that is not told what it is starts no other.
func TestRetriesInASilentChild(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, _, err := sdktest.Get(t.Context(), sdktest.TransportOver(t, sdktest.Answers(503, 0, 200), agrenting.Static(agrenting.APIKey("k1"))), "/x?q=1")
		require.NoError(t, err)
	})
}

func TestRetriesDoNotWriteToStderr(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestRetriesInASilentChild$", "-test.count=1", "-test.v")
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	require.NoError(t, cmd.Run(), "%s", &out)
	assert.Contains(t, out.String(), "--- PASS: TestRetriesInASilentChild")
	assert.Empty(t, stderr.String())
}

// onRecord calls a function for each record with a message.
type onRecord struct {
	slog.Handler
	message string
	call    func()
}

func (h onRecord) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == h.message {
		h.call()
	}
	return nil
}

func (onRecord) Enabled(context.Context, slog.Level) bool { return true }

func TestCanceledCallKeepsOtherConnections(t *testing.T) {
	t.Parallel()

	var dialled atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			dialled.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	log := slog.New(onRecord{slog.DiscardHandler, "agrenting: retrying request", cancel})
	tr := sdktest.TransportOver(t, sdktest.Loopback(t), agrenting.Static(agrenting.APIKey("k1")), agrenting.WithBaseURL(srv.URL), agrenting.WithLogger(log),
		agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: time.Hour, MaxDelay: time.Hour}))

	for range 3 {
		code, _, err := sdktest.Get(t.Context(), tr, srv.URL+"/fine")
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, code)
	}
	require.EqualValues(t, 1, dialled.Load())
	_, _, err := sdktest.Get(ctx, tr, srv.URL+"/busy")
	require.ErrorIs(t, err, context.Canceled)
	_, _, err = sdktest.Get(t.Context(), tr, srv.URL+"/fine")
	require.NoError(t, err)
	assert.EqualValues(t, 1, dialled.Load(), "the idle connection is still there")
}

func TestPermanentFailuresAreNotRetried(t *testing.T) {
	t.Parallel()

	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())

	cases := map[string]struct {
		target string
		tls    *tls.Config
		want   any
	}{
		"unknown authority": {secure.URL, &tls.Config{MinVersion: tls.VersionTLS12}, new(*tls.CertificateVerificationError)},
		"another name": {
			secure.URL,
			&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "other.test"},
			new(x509.HostnameError),
		},
		"plain http": {strings.Replace(plain.URL, "http:", "https:", 1), &tls.Config{MinVersion: tls.VersionTLS12}, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var dialled atomic.Int64
			base := sdktest.Loopback(t)
			base.TLSClientConfig = tc.tls
			base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				dialled.Add(1)
				return new(net.Dialer).DialContext(ctx, network, addr)
			}
			tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1")), agrenting.WithBaseURL(tc.target), sdktest.Sleepless)
			_, _, err := sdktest.Get(t.Context(), tr, tc.target+"/x")
			require.Error(t, err)
			if tc.want != nil {
				require.ErrorAs(t, err, tc.want)
			}
			assert.EqualValues(t, 1, dialled.Load())
		})
	}
}

func TestACancelledRequestIsNotRepeated(t *testing.T) {
	t.Parallel()

	for name, cancelled := range map[string]bool{"by the caller": true, "by the base": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				base := &sdktest.Script{Answer: func(int, *http.Request) (*http.Response, error) {
					if cancelled {
						cancel()
					}
					return nil, fmt.Errorf("canceled: %w", context.Canceled)
				}}
				_, _, err := sdktest.Get(ctx, sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1")), slogTo(&log)), "/x")
				require.ErrorIs(t, err, context.Canceled)
				assert.Equal(t, 1, base.Count())
				assert.NotContains(t, log.String(), "repeating")
			})
		})
	}
}

func TestConnectionErrorsAreRepeated(t *testing.T) {
	t.Parallel()

	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", sdktest.AnyPort)
	require.NoError(t, err)
	target := "http://" + l.Addr().String()
	require.NoError(t, l.Close()) // no server listens there now
	var dialled atomic.Int64
	base := sdktest.Loopback(t)
	base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1")), agrenting.WithBaseURL(target), sdktest.Sleepless)
	_, _, err = sdktest.Get(t.Context(), tr, target+"/x")
	require.Error(t, err)
	assert.EqualValues(t, 4, dialled.Load())
}
