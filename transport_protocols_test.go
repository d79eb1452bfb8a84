package agrenting_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// protocols are the ways in which net/http reaches a server. Module interop has HTTP/3.
var protocols = map[string]func(*testing.T, http.Handler) (*httptest.Server, *http.Transport){
	"HTTP/1.1": func(t *testing.T, h http.Handler) (*httptest.Server, *http.Transport) {
		t.Helper()
		srv := httptest.NewServer(h)
		return srv, sdktest.Loopback(t)
	},
	"HTTP/2.0": func(t *testing.T, h http.Handler) (*httptest.Server, *http.Transport) {
		t.Helper()
		srv := httptest.NewUnstartedServer(h)
		srv.EnableHTTP2 = true
		srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		srv.StartTLS()
		base := sdktest.Trusting(t, srv)
		base.ForceAttemptHTTP2 = true
		return srv, base
	},
	"HTTP/2.0 without TLS": func(t *testing.T, h http.Handler) (*httptest.Server, *http.Transport) {
		t.Helper()
		var unencrypted http.Protocols
		unencrypted.SetUnencryptedHTTP2(true)
		srv := httptest.NewUnstartedServer(h)
		srv.Config.Protocols = &unencrypted
		srv.Start()
		base := sdktest.Loopback(t)
		base.Protocols = &unencrypted
		return srv, base
	},
}

// hurdles is a handler whose first answers are a 401 to an old credential and a 503, so
// that a request needs three attempts.
type hurdles struct {
	before http.HandlerFunc // is called for each attempt
	next   http.HandlerFunc
	early  bool // refuses requests without reading their bodies

	mu   sync.Mutex
	busy bool // the 503 was sent
}

func (h *hurdles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	current := sdktest.SecretOf(r.Header) == "k2"
	if sdktest.IsVerify(r) {
		if !current {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = io.WriteString(w, `{"data":[]}`)
		return
	}
	if h.before != nil {
		h.before(w, r)
	}
	h.mu.Lock()
	first := current && !h.busy
	h.busy = h.busy || current
	h.mu.Unlock()
	switch {
	case !current, first:
		if !h.early {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		w.WriteHeader(map[bool]int{true: http.StatusServiceUnavailable, false: http.StatusUnauthorized}[current])
	default:
		h.next(w, r)
	}
}

// overEach runs a test with a transport over each protocol.
func overEach(t *testing.T, handler func() http.Handler, test func(t *testing.T, url string, tr *agrenting.Transport)) {
	t.Helper()
	for name, open := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := handler()
			srv, base := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				assert.Equal(t, strings.TrimSuffix(name, " without TLS"), r.Proto)
				h.ServeHTTP(w, r)
			}))
			t.Cleanup(srv.Close)
			test(t, srv.URL, sdktest.TransportOver(t, base, sdktest.Refuser(), agrenting.WithBaseURL(srv.URL), sdktest.Sleepless))
		})
	}
}

func TestContract_informationalResponses_arriveFromEachAttempt(t *testing.T) {
	t.Parallel()
	handler := func() http.Handler {
		return &hurdles{
			before: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Link", "</style.css>; rel=preload")
				w.WriteHeader(http.StatusEarlyHints)
			},
			next: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "done") },
		}
	}
	overEach(t, handler, func(t *testing.T, url string, tr *agrenting.Transport) {
		t.Helper()
		var hints []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
			return nil
		}})
		code, body, err := sdktest.Get(ctx, tr, url+"/x")
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, code)
		assert.Equal(t, "done", body)
		hint := "103 </style.css>; rel=preload"
		assert.Equal(t, []string{hint, hint, hint}, hints)
	})
}

// summed is a body that sets a trailer of its request at its end, as net/http permits.
type summed struct {
	io.Reader
	trailer http.Header
}

func (s summed) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		s.trailer.Set("X-Sum", "of the request")
	}
	return n, err
}

func (summed) Close() error { return nil }

func TestContract_trailers_passInBothDirections(t *testing.T) {
	t.Parallel()
	handler := func() http.Handler {
		return &hurdles{next: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Answer-Sum")
			b, _ := io.ReadAll(r.Body)
			_, _ = io.WriteString(w, string(b)+" with "+r.Trailer.Get("X-Sum"))
			w.Header().Set("X-Answer-Sum", "of the response")
		}}
	}
	overEach(t, handler, func(t *testing.T, url string, tr *agrenting.Transport) {
		t.Helper()
		req := sdktest.Request(t, http.MethodPut, url+"/x", nil)
		req.Trailer = http.Header{"X-Sum": nil}
		req.GetBody = func() (io.ReadCloser, error) {
			return summed{strings.NewReader("body"), req.Trailer}, nil
		}
		req.Body, _ = req.GetBody()
		resp, err := tr.RoundTrip(req)
		require.NoError(t, err)
		assert.Equal(t, "body with of the request", readAll(t, resp))
		assert.Equal(t, http.Header{"X-Answer-Sum": {"of the response"}}, resp.Trailer)
	})
}

// A server that refuses a request need not read its body: net/http may still be reading
// the file when it is rewound.
func TestDoRewindsFileBody(t *testing.T) {
	t.Parallel()
	content := strings.Repeat("0123456789abcdef", 256<<10) // 4 MiB, more than all buffers
	for name, open := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &hurdles{early: true, next: func(w http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				assert.NoError(t, err)
				_, _ = fmt.Fprintf(w, `{"data":%t}`, string(b) == content)
			}}
			srv, base := open(t, h)
			t.Cleanup(srv.Close)
			c := sdktest.ClientOver(t, base, sdktest.Refuser(), agrenting.WithBaseURL(srv.URL), sdktest.Sleepless)
			var whole bool
			resp, err := c.Do(t.Context(), http.MethodPut, "/x", fileOf(t, content), &whole)
			require.NoError(t, err)
			assert.GreaterOrEqual(t, resp.Attempts, 3)
			assert.True(t, whole, "not a byte is missing")
		})
	}
}

func TestContract_cookies_areSentWithEachAttempt(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	cookies := map[string][]string{} // by server
	handler := func() http.Handler {
		return &hurdles{
			before: func(_ http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				cookies[r.Host] = append(cookies[r.Host], r.Header.Get("Cookie"))
			},
			next: func(w http.ResponseWriter, _ *http.Request) {
				http.SetCookie(w, &http.Cookie{Name: "seen", Value: "yes"})
			},
		}
	}
	overEach(t, handler, func(t *testing.T, url string, tr *agrenting.Transport) {
		t.Helper()
		jar, err := cookiejar.New(nil)
		require.NoError(t, err)
		client := &http.Client{Transport: tr, Jar: jar}
		for range 2 {
			req := sdktest.Request(t, http.MethodGet, url+"/x", nil)
			req.AddCookie(&http.Cookie{Name: "own", Value: "1"})
			resp, err := client.Do(req)
			require.NoError(t, err)
			readAll(t, resp)
			assert.Equal(t, http.StatusOK, resp.StatusCode)
		}
		mu.Lock()
		defer mu.Unlock()
		_, host, _ := strings.Cut(url, "://")
		assert.Equal(t, []string{"own=1", "own=1", "own=1", "own=1; seen=yes"}, cookies[host])
	})
}

func TestContract_checkRedirect_decidesAboutEachHop(t *testing.T) {
	t.Parallel()
	refusal := errors.New("no further")
	for name, tc := range map[string]struct {
		decide error
		code   int
		body   string
	}{
		"followed":      {nil, http.StatusOK, "arrived"},
		"last response": {http.ErrUseLastResponse, http.StatusFound, "moved"},
		"refused":       {refusal, http.StatusFound, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handler := func() http.Handler {
				return &hurdles{next: func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/end" {
						_, _ = io.WriteString(w, "arrived")
						return
					}
					w.Header().Set("Location", "/end")
					w.WriteHeader(http.StatusFound)
					_, _ = io.WriteString(w, "moved")
				}}
			}
			overEach(t, handler, func(t *testing.T, url string, tr *agrenting.Transport) {
				t.Helper()
				var hops []string
				client := &http.Client{Transport: tr, CheckRedirect: func(req *http.Request, via []*http.Request) error {
					for _, r := range append(via, req) {
						hops = append(hops, r.URL.Path)
						assert.Empty(t, sdktest.CredentialsOf(r.Header))
					}
					assert.Equal(t, http.StatusFound, req.Response.StatusCode)
					return tc.decide
				}}
				resp, err := client.Do(sdktest.Request(t, http.MethodGet, url+"/start", nil))
				require.Equal(t, []string{"/start", "/end"}, hops)
				require.NotNil(t, resp)
				defer resp.Body.Close()
				assert.Equal(t, tc.code, resp.StatusCode)
				if tc.body == "" {
					require.ErrorIs(t, err, refusal)
					_, err = resp.Body.Read(make([]byte, 1))
					require.Error(t, err, "it is closed")
					return
				}
				require.NoError(t, err)
				assert.Equal(t, tc.body, readAll(t, resp))
			})
		})
	}
}
