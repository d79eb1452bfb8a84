package origin_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// hopSecret is part of everything that may not get away.
const hopSecret = "s3cret"

// track notes the requests that several servers got, in order.
type track struct {
	mu   sync.Mutex
	hops []hop
}

type hop struct {
	origin, path, body string
	header             http.Header
}

// ServeHTTP redirects to where the query says, or else returns 200.
func (tr *track) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	tr.mu.Lock()
	tr.hops = append(tr.hops, hop{scheme + r.Host, r.URL.Path, string(b), r.Header.Clone()})
	tr.mu.Unlock()
	q := r.URL.Query()
	if to := q.Get("to"); to != "" {
		code, _ := strconv.Atoi(q.Get("code"))
		w.Header().Set("Set-Cookie", "platform="+hopSecret)
		http.Redirect(w, r, to, code)
	}
}

func (tr *track) seen() []hop {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return append([]hop(nil), tr.hops...)
}

// via is a URL at origin that redirects on to the next one.
func via(origin, path string, code int, to string) string {
	return origin + path + "?" + url.Values{"code": {strconv.Itoa(code)}, "to": {to}, "q": {hopSecret}}.Encode()
}

// place is a way to leave the pinned origin.
type place struct {
	pinned, foreign string
	base            *http.Transport
	opts            []agrenting.Option
	track           *track
}

func serveTrack(t *testing.T, tr *track, network, addr string, secure bool) *httptest.Server {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), network, addr)
	if err != nil {
		t.Skipf("this machine does not listen on %s: %v", addr, err)
	}
	s := httptest.NewUnstartedServer(tr)
	_ = s.Listener.Close()
	s.Listener = l
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

// places are the ways to leave: host, port, scheme, address family, subdomain.
var places = map[string]func(*testing.T) place{
	"other port": func(t *testing.T) place {
		t.Helper()
		var tr track
		a, b := serveTrack(t, &tr, "tcp4", sdktest.AnyPort, false), serveTrack(t, &tr, "tcp4", sdktest.AnyPort, false)
		return place{pinned: a.URL, foreign: b.URL, base: sdktest.Loopback(t), track: &tr}
	},
	"other host, same port": func(t *testing.T) place {
		t.Helper()
		var tr track
		a := serveTrack(t, &tr, "tcp4", sdktest.AnyPort, false)
		return place{pinned: a.URL, foreign: strings.Replace(a.URL, "127.0.0.1", "localhost", 1), base: sdktest.Loopback(t), track: &tr}
	},
	"IPv6": func(t *testing.T) place {
		t.Helper()
		var tr track
		a, b := serveTrack(t, &tr, "tcp4", sdktest.AnyPort, false), serveTrack(t, &tr, "tcp6", "[::1]:0", false)
		return place{pinned: a.URL, foreign: b.URL, base: sdktest.Loopback(t), track: &tr}
	},
	"https to http": func(t *testing.T) place {
		t.Helper()
		var tr track
		a, b := serveTrack(t, &tr, "tcp4", sdktest.AnyPort, true), serveTrack(t, &tr, "tcp4", sdktest.AnyPort, false)
		return place{pinned: a.URL, foreign: b.URL, base: sdktest.Trusting(t, a), track: &tr}
	},
	"http to https": func(t *testing.T) place {
		t.Helper()
		var tr track
		a, b := serveTrack(t, &tr, "tcp4", sdktest.AnyPort, false), serveTrack(t, &tr, "tcp4", sdktest.AnyPort, true)
		return place{pinned: a.URL, foreign: b.URL, base: sdktest.Trusting(t, b), track: &tr}
	},
	"subdomain": func(t *testing.T) place {
		t.Helper()
		return mapped(t, "http://platform.test", "http://sub.platform.test")
	},
	"parent": func(t *testing.T) place {
		t.Helper()
		return mapped(t, "http://api.platform.test", "http://platform.test")
	},
	"other": func(t *testing.T) place {
		t.Helper()
		return mapped(t, "http://platform.test", "http://evil.test")
	},
}

// mapped gives a server any names.
func mapped(t *testing.T, pinned, foreign string) place {
	t.Helper()
	var tr track
	s := serveTrack(t, &tr, "tcp4", sdktest.AnyPort, false)
	base := sdktest.Loopback(t)
	base.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
	}
	return place{pinned: pinned, foreign: foreign, base: base, opts: []agrenting.Option{agrenting.WithInsecureHTTP()}, track: &tr}
}

// holders are who may have put credentials on the first request.
var holders = map[string]struct {
	cred   agrenting.Credential
	caller http.Header
}{
	"our API key": {cred: agrenting.APIKey(hopSecret)},
	"our session": {cred: agrenting.UserToken("ap_" + hopSecret)},
	"the caller": {caller: http.Header{
		"Authorization": {"Bearer " + hopSecret}, "X-Api-Key": {hopSecret}, "Api-Key": {hopSecret},
		"Cookie": {"c=" + hopSecret}, "X-Agent-Id": {hopSecret}, "Proxy-Authorization": {hopSecret},
	}},
	"the caller, oddly spelt": {caller: http.Header{
		"authorization": {"Bearer " + hopSecret}, "X-API-KEY": {hopSecret}, "api-key": {hopSecret},
		"cookie": {"c=" + hopSecret}, "x-agent-ID": {hopSecret},
	}},
}

var redirectCodes = []int{301, 302, 303, 307, 308}

func assertBare(t *testing.T, h hop) {
	t.Helper()
	for name, values := range h.header {
		assert.NotContains(t, strings.Join(values, " "), hopSecret, "%s at %s%s", name, h.origin, h.path)
		assert.NotContains(t, []string{"X-Agent-Id", "Referer", "Cookie"}, name, "at %s%s", h.origin, h.path)
	}
}

func TestForeignRedirectRemovesCredentials(t *testing.T) {
	t.Parallel()

	for where, open := range places {
		for who, holder := range holders {
			for _, code := range redirectCodes {
				t.Run(fmt.Sprintf("%s, %s, %d", where, who, code), func(t *testing.T) {
					t.Parallel()
					p := open(t)
					cred := holder.cred
					if holder.caller != nil {
						cred = agrenting.APIKey("ours-" + hopSecret)
					}
					tr := sdktest.TransportOver(t, p.base, agrenting.Static(cred),
						append(p.opts, agrenting.WithBaseURL(p.pinned), agrenting.WithAgentID("agent-"+hopSecret))...)
					jar, err := cookiejar.New(nil)
					require.NoError(t, err)
					client := &http.Client{Transport: tr, Jar: jar}

					// Within the origin first, then out of it, on, back, and within again.
					target := via(p.pinned, "/start", code,
						via(p.pinned, "/within", code,
							via(p.foreign, "/out", code,
								via(p.foreign, "/on", code,
									via(p.pinned, "/back", code, p.pinned+"/stay")))))
					req := sdktest.Request(t, http.MethodPost, target, strings.NewReader("body"))
					maps.Copy(req.Header, holder.caller)
					check := sdktest.Freeze(t, req)
					resp, err := client.Do(req)
					require.NoError(t, err)
					discard(t, resp)
					check()

					hops := p.track.seen()
					require.Len(t, hops, 6)
					for i, path := range []string{"/start", "/within", "/out", "/on", "/back", "/stay"} {
						require.Equal(t, path, hops[i].path)
					}
					for _, h := range hops[:2] {
						assert.Equal(t, p.pinned, h.origin)
						assert.NotEmpty(t, sdktest.CredentialsOf(h.header), "at %s", h.path)
						assert.NotEmpty(t, h.header["X-Agent-Id"], "at %s", h.path)
					}
					for _, h := range hops[2:] {
						assertBare(t, h)
					}
					if code >= 307 {
						assert.Equal(t, "body", hops[5].body)
					}
				})
			}
		}
	}
}

func TestForeignRedirectChainGetsNoCredential(t *testing.T) {
	t.Parallel()

	// Else anybody could make the SDK send authenticated requests of their choice.
	for where, open := range places {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			p := open(t)
			tr := sdktest.TransportOver(t, p.base, agrenting.Static(agrenting.APIKey(hopSecret)),
				append(p.opts, agrenting.WithBaseURL(p.pinned), agrenting.WithAgentID("agent-1"))...)
			req := sdktest.Request(t, http.MethodGet, via(p.foreign, "/out", 307, p.pinned+"/back"), nil)
			req.Header.Set("X-Token", "the caller's own kind of header")
			resp, err := (&http.Client{Transport: tr}).Do(req)
			require.NoError(t, err)
			discard(t, resp)
			hops := p.track.seen()
			require.Len(t, hops, 2)
			for _, h := range hops {
				assertBare(t, h)
				assert.Len(t, h.header["X-Token"], 1, "other headers are kept")
			}
		})
	}
}

func TestClientRefusesForeignRedirect(t *testing.T) {
	t.Parallel()

	for where, open := range places {
		for _, code := range redirectCodes {
			t.Run(fmt.Sprintf("%s, %d", where, code), func(t *testing.T) {
				t.Parallel()
				p := open(t)
				c := sdktest.ClientOver(t, p.base, agrenting.Static(agrenting.APIKey(hopSecret)), append(p.opts, agrenting.WithBaseURL(p.pinned))...)
				to := p.foreign + "/out?q=" + hopSecret

				resp, err := c.HTTPClient().Do(sdktest.Request(t, http.MethodPost, via(p.pinned, "/start", code, to), strings.NewReader("body")))
				require.ErrorIs(t, err, agrenting.ErrForeignOrigin)
				if resp != nil {
					_ = resp.Body.Close()
				}
				_, err = c.Do(t.Context(), http.MethodPost, strings.TrimPrefix(via("", "/start", code, to), p.pinned), "body", nil)
				require.ErrorIs(t, err, agrenting.ErrForeignOrigin)
				assert.Contains(t, err.Error(), p.foreign)
				assert.Contains(t, err.Error(), "WithAllowedOrigins")
				assert.NotContains(t, err.Error(), hopSecret, "no query string in the error of Do")

				hops := p.track.seen()
				require.Len(t, hops, 2)
				for _, h := range hops {
					assert.Equal(t, "/start", h.path, "the foreign server sees nothing")
				}
			})
		}
	}
}

func TestRedirectsWithinThePinnedOriginsKeepTheCredential(t *testing.T) {
	t.Parallel()

	for _, code := range redirectCodes {
		for name, allowed := range map[string]bool{"same origin": false, "allowed origin": true} {
			t.Run(fmt.Sprintf("%s, %d", name, code), func(t *testing.T) {
				t.Parallel()
				p := places["other port"](t)
				second, opts := p.pinned, []agrenting.Option{agrenting.WithBaseURL(p.pinned), agrenting.WithAgentID("agent-1")}
				if allowed {
					second, opts = p.foreign, append(opts, agrenting.WithAllowedOrigins(p.foreign))
				}
				c := sdktest.ClientOver(t, p.base, agrenting.Static(agrenting.APIKey("k1")), opts...)
				for _, client := range []*http.Client{c.HTTPClient(), {Transport: c.Transport()}} {
					resp, err := client.Do(sdktest.Request(t, http.MethodGet, via(p.pinned, "/start", code, second+"/next"), nil))
					require.NoError(t, err)
					assert.Equal(t, http.StatusOK, resp.StatusCode)
					discard(t, resp)
				}
				hops := p.track.seen()
				require.Len(t, hops, 4)
				for _, h := range hops {
					assert.Equal(t, "k1", sdktest.SecretOf(h.header))
					assert.Equal(t, []string{"agent-1"}, h.header["X-Agent-Id"])
				}
			})
		}
	}
}

func TestTheClientGivesUpOnEndlessRedirects(t *testing.T) {
	t.Parallel()

	base := sdktest.Recorder{Then: func(n int, _ sdktest.Seen) *http.Response {
		return sdktest.Reply(http.StatusFound, "", "Location", fmt.Sprintf("/hop/%d?q=%s", n, hopSecret))
	}}
	c := sdktest.ClientOver(t, &base, agrenting.Static(agrenting.APIKey("k1")))
	_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.ErrorContains(t, err, "10 redirects")
	assert.NotContains(t, err.Error(), hopSecret)
	assert.Len(t, base.Requests(), 10)
}

func TestARedirectToPlainHTTPIsRefused(t *testing.T) {
	t.Parallel()

	var base sdktest.Recorder
	base.Then = func(int, sdktest.Seen) *http.Response {
		return sdktest.Reply(http.StatusFound, "", "Location", "http://api.agrenting.test/x")
	}
	client := &http.Client{Transport: sdktest.TransportOver(t, &base, agrenting.Static(agrenting.APIKey("k1")))}
	_, err := client.Do(sdktest.Request(t, http.MethodGet, "/x", nil)) //nolint:bodyclose // there is none
	require.ErrorIs(t, err, agrenting.ErrInsecureURL)
	assert.Len(t, base.Requests(), 1)
}

func TestForeignRedirectRemovesIdentifyingHeaders(t *testing.T) {
	t.Parallel()

	sensitive := []string{
		"Authorization", "X-Api-Key", "Api-Key", "X-Agent-Id", "Proxy-Authorization", "Cookie", "Cookie2",
		"Referer", "Www-Authenticate", "x_api_key", "api-KEY",
	}
	for _, name := range []string{"X-API-Key", "Api-Key"} {
		var base sdktest.Recorder
		tr := sdktest.TransportOver(t, &base, agrenting.Static(agrenting.APIKey("k1")), agrenting.WithAPIKeyHeader(name))
		first := sdktest.Request(t, http.MethodGet, "https://one.test/x", nil)
		for target, kept := range map[string]bool{"https://one.test/y": true, "https://two.test/y": false} {
			req := sdktest.Request(t, http.MethodGet, target, nil)
			req.Response = &http.Response{Request: first}
			for _, h := range sensitive {
				req.Header[h] = []string{hopSecret}
			}
			req.Header["Accept"] = []string{"text/plain"}
			resp, err := tr.RoundTrip(req)
			require.NoError(t, err)
			discard(t, resp)
			got := base.Requests()[len(base.Requests())-1].Header
			assert.Equal(t, "text/plain", got.Get("Accept"))
			for _, h := range sensitive {
				assert.Equal(t, kept, got[h] != nil, "%s to %s", h, target)
			}
		}
	}
}
