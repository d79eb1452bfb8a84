package agrenting

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// reading is how much of a body a base reads before it answers.
type reading int

const (
	readsNothing reading = iota
	readsSome
	readsAll
	readsSomeAndKeepsIt // and closes it after it has responded
)

// reader is a base that accepts k2 alone, reads as much as told of the bodies of
// others, and closes them.
func reader(src *mint, how reading, bodies *[]string) tripFunc {
	return verifying("k2", tripFunc(func(r *http.Request) (*http.Response, error) {
		if secretOf(r.Header) == "k2" {
			*bodies = append(*bodies, swallow(r))
			return reply(http.StatusOK, ""), nil
		}
		src.replace(APIKey("k2"))
		switch how {
		case readsNothing:
		case readsSomeAndKeepsIt:
			_, _ = r.Body.Read(make([]byte, 2))
			resp := reply(http.StatusUnauthorized, "")
			resp.Body = closeBoth{strings.NewReader(revokedBody), r.Body}
			return resp, nil
		case readsSome:
			_, _ = r.Body.Read(make([]byte, 2))
		case readsAll:
			_, _ = io.ReadAll(r.Body)
		}
		_ = r.Body.Close()
		return reply(http.StatusUnauthorized, revokedBody), nil
	}))
}

// closeBoth is the body of a response that came before the request was sent to
// its end.
type closeBoth struct {
	io.Reader
	request io.Closer
}

func (c closeBoth) Close() error { return c.request.Close() }

func TestBodyIsReplayedCompletely(t *testing.T) {
	t.Parallel()

	const content = "the whole body"
	for how, name := range map[reading]string{
		readsNothing: "untouched", readsSome: "begun", readsAll: "sent", readsSomeAndKeepsIt: "being sent",
	} {
		for _, getBody := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, GetBody %t", name, getBody), func(t *testing.T) {
				t.Parallel()
				src := newMint("k1")
				var bodies []string
				tr := transportOver(t, reader(src, how, &bodies), src)
				body, second := newSpyBody(content), newSpyBody(content)
				req := request(t, http.MethodPost, "/x", body)
				var made int
				if getBody {
					req.GetBody = func() (io.ReadCloser, error) { made++; return second, nil }
				}
				resp, err := tr.RoundTrip(req)
				require.NoError(t, err)
				defer func() { assert.Equal(t, 1, body.closed(), "the caller's body is closed once") }()
				if !getBody && how != readsNothing {
					assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
					assert.Empty(t, bodies, "nothing was replayed")
					err := CheckResponse(resp)
					require.ErrorIs(t, err, ErrNotReplayable)
					require.ErrorIs(t, err, ErrUnauthorized)
					assert.Contains(t, err.Error(), "the key was revoked")
					assert.JSONEq(t, revokedBody, readAll(t, resp), "the response is still there")
					return
				}
				assert.Equal(t, http.StatusOK, resp.StatusCode)
				assert.Equal(t, []string{content}, bodies)
				if getBody {
					assert.Equal(t, 1, made)
					assert.Equal(t, 1, second.closed())
				}
			})
		}
	}
}

func TestDoAndHTTPClientReportNotReplayable(t *testing.T) {
	t.Parallel()

	src := newMint("k1")
	var bodies []string
	c := clientOver(t, reader(src, readsAll, &bodies), src)
	resp, err := c.Do(t.Context(), http.MethodPost, "/x", newSpyBody("content"), nil)
	require.ErrorIs(t, err, ErrNotReplayable)
	require.ErrorIs(t, err, ErrUnauthorized)
	api, ok := errors.AsType[*APIError](err)
	require.True(t, ok)
	assert.Equal(t, 1, api.Attempts)
	assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)

	src = newMint("k1")
	c = clientOver(t, reader(src, readsAll, &bodies), src)
	raw, err := c.HTTPClient().Do(request(t, http.MethodPost, "/x", newSpyBody("content")))
	require.NoError(t, err)
	defer raw.Body.Close()
	err = CheckResponse(raw)
	require.ErrorIs(t, err, ErrNotReplayable)
	assert.Contains(t, err.Error(), "GetBody")
	assert.Empty(t, bodies)
}

func TestFailingGetBodyIsNotReplayable(t *testing.T) {
	t.Parallel()

	src := newMint("k1")
	var bodies []string
	tr := transportOver(t, reader(src, readsNothing, &bodies), src)
	req := request(t, http.MethodPost, "/x", newSpyBody("content"))
	lost := errors.New("the file is gone")
	req.GetBody = func() (io.ReadCloser, error) { return nil, lost }
	resp, err := tr.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	err = CheckResponse(resp)
	require.ErrorIs(t, err, ErrNotReplayable)
	require.ErrorIs(t, err, lost)
	assert.Empty(t, bodies)
}

func TestRewoundBodyIsClosedForFirstAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const content = "the whole body"
		src := newMint("k1")
		late := make(chan struct{})
		var lateErr error
		var second string
		var wg sync.WaitGroup
		tr := transportOver(t, verifying("k2", tripFunc(func(r *http.Request) (*http.Response, error) {
			if secretOf(r.Header) == "k2" {
				close(late) // while this attempt reads, the first one tries to, and closes
				wg.Wait()
				second = swallow(r)
				return reply(http.StatusOK, ""), nil
			}
			src.replace(APIKey("k2"))
			wg.Go(func() {
				<-late
				_, lateErr = io.ReadAll(r.Body)
				_ = r.Body.Close()
			})
			return reply(http.StatusUnauthorized, ""), nil
		})), src)
		body := newSpyBody(content)
		resp, err := tr.RoundTrip(request(t, http.MethodPost, "/x", body)) //nolint:bodyclose // it is in memory
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, resp.StatusCode)
		require.Error(t, lateErr)
		assert.Equal(t, content, second, "not a byte is missing")
		assert.Equal(t, 1, body.closed())
	})
}

func TestABodyIsClosedOnceWhateverHappens(t *testing.T) {
	t.Parallel()

	closed := func(tr *Transport) { _ = tr.Close() }
	cases := map[string]struct {
		codes   []int // 0 is an error of the base
		static  bool
		stuck   bool // the source keeps its credential
		broken  bool // the source fails at the renewal
		target  string
		agent   string
		prepare func(*Transport)
	}{
		"success":           {codes: []int{200}},
		"refused":           {codes: []int{403}},
		"replayed":          {codes: []int{401, 200}},
		"replayed, refused": {codes: []int{401, 401}},
		"replayed, dropped": {codes: []int{401, 0}},
		"nothing newer":     {codes: []int{401}, stuck: true},
		"renewal fails":     {codes: []int{401}, broken: true},
		"error":             {codes: []int{0}},
		"retried":           {codes: []int{503, 0, 429, 200}},
		"retried for ever":  {codes: []int{503}},
		"retried, replayed": {codes: []int{503, 401, 200}},
		"static":            {codes: []int{200}, static: true},
		"static, refused":   {codes: []int{401}, static: true},
		"elsewhere":         {codes: []int{200}, target: "https://other.test/"},
		"insecure":          {target: "http://other.test/"},
		"invalid agent":     {agent: "not an id"},
		"closed":            {prepare: closed},
		"static, closed":    {static: true, prepare: closed},
	}
	for name, tc := range cases {
		for how, read := range map[reading]string{readsNothing: "untouched", readsSome: "begun", readsAll: "sent"} {
			for _, getBody := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, %s, GetBody %t", name, read, getBody), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						m := newMint("k1")
						var src CredentialSource = m
						if tc.static {
							src = Static(APIKey("k1"))
						}
						base := answers(append(tc.codes, 200)[:max(1, len(tc.codes))]...)
						tr := transportOver(t, tripFunc(func(r *http.Request) (*http.Response, error) {
							switch how {
							case readsNothing, readsSomeAndKeepsIt:
							case readsSome:
								_, _ = r.Body.Read(make([]byte, 2))
							case readsAll:
								_, _ = io.ReadAll(r.Body)
							}
							_ = r.Body.Close()
							r.Body = nil
							resp, err := base.RoundTrip(r)
							if resp != nil && resp.StatusCode == http.StatusUnauthorized && !tc.stuck {
								m.replace(APIKey(fmt.Sprintf("k%d", base.count()+1)))
								if tc.broken {
									m.replace(Credential{})
								}
							}
							return resp, err
						}), src)
						if tc.prepare != nil {
							tc.prepare(tr)
						}
						target := "/x"
						if tc.target != "" {
							target = tc.target
						}
						bodies := []*spyBody{newSpyBody("content")}
						req := request(t, http.MethodPut, target, bodies[0])
						if tc.agent != "" {
							req = req.WithContext(ContextWithAgent(req.Context(), tc.agent))
						}
						if getBody {
							req.GetBody = func() (io.ReadCloser, error) {
								bodies = append(bodies, newSpyBody("content"))
								return bodies[len(bodies)-1], nil
							}
						}
						resp, err := tr.RoundTrip(req)
						if err == nil {
							readAll(t, resp)
						}
						synctest.Wait()
						for i, b := range bodies {
							assert.Equal(t, 1, b.closed(), "body %d of %d", i+1, len(bodies))
						}
					})
				})
			}
		}
	}
}

// intake is a server that accepts k2 alone and responds to others without reading
// their bodies. It notes the bodies it took.
type intake struct {
	mu       sync.Mutex
	refused  int
	bodies   []string
	readsAll bool // read a refused body too
}

func (s *intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if isVerify(r) {
		if secretOf(r.Header) != "k2" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, revokedBody)
		}
		return
	}
	if secretOf(r.Header) != "k2" {
		s.refused++
		if s.readsAll {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, revokedBody)
		return
	}
	b, _ := io.ReadAll(r.Body)
	s.bodies = append(s.bodies, string(b))
}

// refuser is a source that gives k1 once and k2 ever after.
func refuser() CredentialSource {
	var n atomic.Int64
	return CredentialSourceFunc(func(context.Context) (Credential, error) {
		return APIKey(fmt.Sprintf("k%d", min(2, n.Add(1)))), nil
	})
}

// loopback is a separate transport, whose connections end with the test.
func loopback(t *testing.T) *http.Transport {
	t.Helper()
	tr := &http.Transport{ExpectContinueTimeout: time.Hour}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func TestALargeBodyWaitsFor100Continue(t *testing.T) {
	t.Parallel()

	content := strings.Repeat("0123456789abcdef", 64<<10) // 1 MiB
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("length known %t", known), func(t *testing.T) {
			t.Parallel()
			var in intake
			srv := httptest.NewServer(&in)
			t.Cleanup(srv.Close)
			tr := transportOver(t, loopback(t), refuser(), WithBaseURL(srv.URL))
			body := newSpyBody(content)
			req := request(t, http.MethodPost, srv.URL+"/upload", body)
			if known {
				req.ContentLength = int64(len(content))
			}
			req.Header.Set("Expect", "100-continue")
			resp, err := tr.RoundTrip(req)
			require.NoError(t, err)
			assert.Equal(t, http.StatusOK, resp.StatusCode)
			readAll(t, resp)
			in.mu.Lock()
			defer in.mu.Unlock()
			assert.Equal(t, 1, in.refused)
			require.Len(t, in.bodies, 1)
			assert.Equal(t, content, in.bodies[0])
			assert.EqualValues(t, len(content), body.read.Load(), "uploaded once")
			assert.Equal(t, 1, body.closed())
		})
	}
}

func TestARealServerNeverGetsAnEmptyReplay(t *testing.T) {
	t.Parallel()

	const content = "some content"
	in := intake{readsAll: true}
	srv := httptest.NewServer(&in)
	t.Cleanup(srv.Close)
	c := clientOver(t, loopback(t), refuser(), WithBaseURL(srv.URL))
	upload := func() error {
		_, err := c.Do(t.Context(), http.MethodPost, "/upload", struct{ io.Reader }{strings.NewReader(content)}, nil)
		return err
	}
	require.ErrorIs(t, upload(), ErrNotReplayable)
	require.NoError(t, upload(), "the next one has the new credential")
	in.mu.Lock()
	defer in.mu.Unlock()
	assert.Equal(t, 1, in.refused)
	assert.Equal(t, []string{content}, in.bodies)
}
