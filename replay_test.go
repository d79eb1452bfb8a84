package agrenting

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/evidence"
	"github.com/agrenting/agrenting-go/internal/gate"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// eventNames collects what an observer is told.
type eventNames struct {
	mu  sync.Mutex
	all []string
}

func (l *eventNames) option() Option {
	return WithObserver(func(e Event) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all = append(l.all, fmt.Sprintf("%s %d", e.Type, e.Generation))
	})
}

func (l *eventNames) events() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.all...)
}

// spyAnswer is a response body that records how it was used.
type spyAnswer struct {
	io.Reader
	eof    atomic.Bool
	closes atomic.Int64
}

func (b *spyAnswer) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		b.eof.Store(true)
	}
	return n, err
}

func (b *spyAnswer) Close() error {
	b.closes.Add(1)
	return nil
}

func TestA401RenewsAndReplaysOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := newMint("k1")
		first := &spyAnswer{Reader: strings.NewReader(revokedBody)}
		base := newPlatform("k1")
		var log eventNames
		tr := transportOver(t, tripFunc(func(r *http.Request) (*http.Response, error) {
			resp, err := base.RoundTrip(r)
			if resp.StatusCode == http.StatusUnauthorized && !isVerify(r) {
				resp.Body = first
			}
			return resp, err
		}), src, log.option(), WithAgentID("agent-1"))

		_, _, err := get(t.Context(), tr, "/warm")
		require.NoError(t, err)
		base.accept("k2")
		src.replace(APIKey("k2"))

		req := request(t, http.MethodPost, "/x", strings.NewReader("body"))
		resp, err := tr.RoundTrip(req)
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, resp.StatusCode)
		assert.Equal(t, "body", readAll(t, resp))

		got := base.requests()
		require.Len(t, got, 3)
		assert.Equal(t, "k1", secretOf(got[1].header))
		assert.Equal(t, "k2", secretOf(got[2].header))
		assert.Equal(t, []string{"agent-1"}, got[2].header["X-Agent-Id"])
		assert.Equal(t, "body", got[2].body)
		assert.Equal(t, 2, src.count())
		assert.True(t, first.eof.Load(), "net/http no longer reads the body")
		assert.EqualValues(t, 1, first.closes.Load())
		synctest.Wait()
		assert.Equal(t, []string{"renewed 1", "rejected 0", "renewed 2"}, log.events())
	})
}

func TestAHuge401IsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	src := newMint("k1")
	var read atomic.Int64
	first := &spyAnswer{Reader: readerFunc(func(p []byte) (int, error) {
		read.Add(int64(len(p)))
		return len(p), nil
	})}
	tr := transportOver(t, verifying("k2", tripFunc(func(r *http.Request) (*http.Response, error) {
		if secretOf(r.Header) == "k2" {
			return reply(http.StatusOK, ""), nil
		}
		src.replace(APIKey("k2"))
		resp := reply(http.StatusUnauthorized, "")
		resp.Body = first
		return resp, nil
	})), src)
	code, _, err := get(t.Context(), tr, "/x")
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, code)
	assert.Less(t, read.Load(), int64(64<<10))
	assert.EqualValues(t, 1, first.closes.Load())
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// herd sends n requests at once whose answers wait until all of them are on the
// wire, and then arrive as far apart as told.
func herd(t *testing.T, base *platform, src CredentialSource, n int, apart time.Duration, opts ...Option) (ok int) {
	t.Helper()
	var onWire sync.WaitGroup
	onWire.Add(n)
	var arrived, good atomic.Int64
	tr := transportOver(t, tripFunc(func(r *http.Request) (*http.Response, error) {
		resp, err := base.RoundTrip(r)
		if r.URL.Path == "/herd" && secretOf(r.Header) == "k1" {
			nth := arrived.Add(1)
			onWire.Done()
			onWire.Wait()
			<-time.After(time.Duration(nth) * apart)
		}
		return resp, err
	}), src, opts...)
	code, _, err := get(t.Context(), tr, "/warm")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, code)

	base.accept("k2")
	switch s := src.(type) {
	case *mint:
		s.replace(APIKey("k2"))
	case *fileSource:
		require.NoError(t, os.WriteFile(s.file.Path(), []byte("k2\n"), 0o600))
	}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if code, _, err := get(t.Context(), tr, "/herd"); err == nil && code == http.StatusOK {
				good.Add(1)
			}
		})
	}
	wg.Wait()
	return int(good.Load())
}

func TestReplacedKeyCausesOneFetchForManyRequests(t *testing.T) {
	t.Parallel()

	const n = 50
	for name, apart := range map[string]time.Duration{"at once": 0, "staggered": 3 * time.Millisecond, "slowly": 10 * time.Second} {
		t.Run("source func, "+name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				base, src := newPlatform("k1"), newMint("k1")
				assert.Equal(t, n, herd(t, base, src, n, apart))
				assert.Equal(t, 2, src.count(), "the first fetch and one more")
				assert.Equal(t, 1+n, base.count("k1"))
				assert.Equal(t, n, base.count("k2"))
			})
		})
		t.Run("file, "+name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "key")
			require.NoError(t, os.WriteFile(path, []byte("k1\n"), 0o600))
			synctest.Test(t, func(t *testing.T) {
				base := newPlatform("k1")
				var log eventNames
				assert.Equal(t, n, herd(t, base, FileSource(path), n, apart, log.option()))
				synctest.Wait()
				assert.Equal(t, []string{"renewed 1", "rejected 0", "renewed 2"}, log.events(), "one fetch after the first")
				assert.Equal(t, n, base.count("k2"))
			})
		})
	}
}

func TestLate401OfOldCredentialKeepsNewOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src, base := newMint("k1"), newPlatform("k1")
		late := make(chan struct{})
		tr := transportOver(t, tripFunc(func(r *http.Request) (*http.Response, error) {
			resp, err := base.RoundTrip(r)
			if r.URL.Path == "/late" && secretOf(r.Header) == "k1" {
				<-late
			}
			return resp, err
		}), src)
		_, _, err := get(t.Context(), tr, "/warm")
		require.NoError(t, err)
		base.accept("k2")
		src.replace(APIKey("k2"))

		done := make(chan int)
		go func() {
			code, _, _ := get(t.Context(), tr, "/late")
			done <- code
		}()
		synctest.Wait()
		code, _, err := get(t.Context(), tr, "/other") // renews
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, 2, src.count())

		src.replace(APIKey("k3")) // would be noticed if anybody asked
		close(late)
		assert.Equal(t, http.StatusOK, <-done)
		assert.Equal(t, 2, src.count(), "no further fetch")
		_, _, err = get(t.Context(), tr, "/after")
		require.NoError(t, err)
		assert.Equal(t, 3, base.count("k2"))
		assert.Zero(t, base.count("k3"))
	})
}

func TestRequestsNotYetSentWaitForTheRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src, base := newMint("k1"), newPlatform("k1")
		tr := transportOver(t, base, src)
		tr.creds.evidence.Verifies(APIKey("k1").c) // the platform answers when asked about keys
		_, _, err := get(t.Context(), tr, "/warm")
		require.NoError(t, err)
		base.accept("k2")
		src.replace(APIKey("k2"))
		release := src.hold()

		const n = 20
		var ok atomic.Int64
		var wg sync.WaitGroup
		send := func() {
			if code, _, err := get(t.Context(), tr, "/x"); err == nil && code == http.StatusOK {
				ok.Add(1)
			}
		}
		wg.Go(send) // meets the 401
		letPass(time.Second)
		for range n {
			wg.Go(send)
		}

		body := newSpyBody("body")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		began := time.Now()
		err = failure(tr, request(t, http.MethodPost, "/hurry", body).WithContext(ctx))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 10*time.Millisecond, time.Since(began), "who cannot wait leaves at its own deadline")
		assert.Equal(t, 1, body.closed())

		synctest.Wait()
		assert.Len(t, base.requests(), 2, "no other request is sent with the dead key")
		release()
		wg.Wait()
		assert.EqualValues(t, n+1, ok.Load())
		assert.Equal(t, 2, base.count("k1"))
		assert.Equal(t, 2, src.count())
	})
}

func TestRequestWith401MayBeCanceled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src, base := newMint("k1"), newPlatform("k1")
		tr := transportOver(t, base, src)
		_, _, err := get(t.Context(), tr, "/warm")
		require.NoError(t, err)
		base.accept("k2")
		src.replace(APIKey("k2"))
		release := src.hold()

		reason := errors.New("no longer wanted")
		ctx, cancel := context.WithCancelCause(t.Context())
		left := make(chan error)
		go func() {
			_, _, err := get(ctx, tr, "/leader")
			left <- err
		}()
		letPass(time.Second)
		follower := make(chan int)
		go func() {
			code, _, _ := get(t.Context(), tr, "/follower")
			follower <- code
		}()
		letPass(time.Second)
		cancel(reason)
		require.ErrorIs(t, <-left, reason)
		release()
		assert.Equal(t, http.StatusOK, <-follower)
		assert.Equal(t, 2, src.count(), "the fetch was not thrown away")
	})
}

func Test401IsReturnedUnchangedWithoutAnotherCredential(t *testing.T) {
	t.Parallel()

	for name, src := range map[string]CredentialSource{
		"static": Static(APIKey("k1")), "same again": newMint("k1"), "no source": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				base := newPlatform("other")
				src, opts := src, []Option{}
				if src == nil {
					opts, src = append(opts, WithAnonymous()), Static(APIKey("unused"))
				}
				tr := transportOver(t, base, src, opts...)
				resp, err := tr.RoundTrip(request(t, http.MethodPost, "/x", strings.NewReader("body")))
				require.NoError(t, err)
				assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
				assert.JSONEq(t, revokedBody, readAll(t, resp))
				assert.Len(t, base.requests(), 1)
				require.NoError(t, noteOf(resp).notReplayed)
			})
		})
	}
}

func TestOnlyA401IsReplayed(t *testing.T) {
	t.Parallel()

	for _, code := range []int{200, 204, 301, 304, 400, 402, 403, 404, 407, 409, 410, 422, 423} {
		base, src := answers(code), newMint("k1")
		tr := transportOver(t, base, src)
		_, _, err := get(t.Context(), tr, "/warm")
		require.NoError(t, err)
		src.replace(APIKey("k2"))
		got, body, err := get(t.Context(), tr, "/x")
		require.NoError(t, err)
		assert.Equal(t, code, got)
		assert.Equal(t, http.StatusText(code), body)
		assert.Equal(t, 2, base.count(), "%d", code)
		assert.Equal(t, 1, src.count(), "%d", code)
	}
}

func TestFailedRenewalIsReturnedToRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := newMint("k1")
		down := errors.New("the vault is down")
		answer := &spyAnswer{Reader: strings.NewReader(revokedBody)}
		tr := transportOver(t, verifying("", tripFunc(func(r *http.Request) (*http.Response, error) {
			swallow(r)
			src.mu.Lock()
			src.err = down
			src.mu.Unlock()
			resp := reply(http.StatusUnauthorized, "")
			resp.Body = answer
			return resp, nil
		})), src, WithRetryPolicy(RetryPolicy{RenewalWait: -1}))
		tr.creds.evidence.Verifies(APIKey("k1").c)
		body := newSpyBody("body")
		resp, err := tr.RoundTrip(request(t, http.MethodPost, "/x", body)) //nolint:bodyclose // it is in memory
		assert.Nil(t, resp)
		require.ErrorIs(t, err, down)
		require.ErrorIs(t, err, ErrUnauthorized)
		assert.EqualValues(t, 1, answer.closes.Load())
		assert.Equal(t, 1, body.closed())
		for range 100 {
			_, _, err = get(t.Context(), tr, "/next")
			require.ErrorIs(t, err, down)
		}
		assert.Equal(t, 2, src.count(), "the source is not asked before its pause is over")
	})
}

func TestRouteThatAlwaysReturns401CausesFewRenewals(t *testing.T) {
	t.Parallel()

	fresh := func() CredentialSource { // gives another key each time
		var n atomic.Int64
		return CredentialSourceFunc(func(context.Context) (Credential, error) {
			return APIKey(fmt.Sprintf("k%d", n.Add(1))), nil
		})
	}
	cases := map[string]struct {
		source CredentialSource
		apart  time.Duration
		verify int // status of Routes.Verify
	}{
		"same key, at once":              {newMint("k1"), 0, http.StatusOK},
		"same key, each second":          {newMint("k1"), time.Second, http.StatusOK},
		"fresh keys, at once":            {fresh(), 0, http.StatusOK},
		"fresh keys, each 100ms":         {fresh(), 100 * time.Millisecond, http.StatusOK},
		"fresh keys, each s":             {fresh(), time.Second, http.StatusOK},
		"same key, no Verify route":      {newMint("k1"), time.Second, http.StatusNotFound},
		"fresh keys, no Verify route":    {fresh(), time.Second, http.StatusNotFound},
		"same key, Verify refuses all":   {newMint("k1"), time.Second, http.StatusUnauthorized},
		"fresh keys, Verify refuses all": {fresh(), time.Second, http.StatusUnauthorized},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var fetches, refused atomic.Int64
				src := CredentialSourceFunc(func(ctx context.Context) (Credential, error) {
					fetches.Add(1)
					return tc.source.Credential(ctx)
				})
				tr := transportOver(t, tripFunc(func(r *http.Request) (*http.Response, error) {
					if isVerify(r) {
						return reply(tc.verify, revokedBody), nil
					}
					if r.URL.Path == "/always" {
						return reply(http.StatusUnauthorized, revokedBody), nil
					}
					return reply(http.StatusOK, ""), nil
				}), src)
				began := time.Now()
				for range 1000 {
					code, body, err := get(t.Context(), tr, "/always")
					require.NoError(t, err)
					if code == http.StatusUnauthorized && body == revokedBody {
						refused.Add(1)
					}
					<-time.After(tc.apart)
					code, _, err = get(t.Context(), tr, "/fine")
					require.NoError(t, err)
					require.Equal(t, http.StatusOK, code, "other routes do not suffer")
				}
				assert.EqualValues(t, 1000, refused.Load())
				took, most := time.Since(began), int64(1)
				switch tc.verify {
				case http.StatusOK: // the key is alive
					assert.Less(t, took, 10*time.Second+1000*tc.apart, "the 401s come at once")
				case http.StatusNotFound:
					most = 3 + 2*int64(took/time.Minute)
				case http.StatusUnauthorized: // with backoff, if the source insists on the key
					most = 10 + int64(took/(15*time.Second))
				}
				assert.LessOrEqual(t, fetches.Load(), most)
				assert.GreaterOrEqual(t, fetches.Load(), min(2, most), "it was tried")
			})
		})
	}
}

func TestReplayFollowsChangingCredentials(t *testing.T) {
	t.Parallel()

	// Another process rotates the shared key each time the request is on the wire.
	for name, tc := range map[string]struct{ changes, calls, code int }{
		"once":    {1, 2, 200},
		"twice":   {2, 3, 200},
		"thrice":  {3, 4, 200},
		"forever": {100, 1 + maxSwitches, 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				src := newMint("k0")
				var tr *Transport
				var calls int
				tr = transportOver(t, tripFunc(func(r *http.Request) (*http.Response, error) {
					if isVerify(r) {
						return verdict(secretOf(r.Header) == fmt.Sprintf("k%d", calls)), nil
					}
					if r.URL.Path == "/other" {
						if secretOf(r.Header) != fmt.Sprintf("k%d", calls) {
							return reply(http.StatusUnauthorized, ""), nil
						}
						return reply(http.StatusOK, ""), nil
					}
					calls++
					if calls > tc.changes {
						return reply(http.StatusOK, ""), nil
					}
					src.replace(APIKey(fmt.Sprintf("k%d", calls)))
					if _, _, err := get(t.Context(), tr, "/other"); err != nil {
						return nil, err
					}
					return reply(http.StatusUnauthorized, ""), nil
				}), src)
				tr.creds.evidence.Verifies(APIKey("k0").c)
				code, _, err := get(t.Context(), tr, "/x")
				require.NoError(t, err)
				assert.Equal(t, tc.code, code)
				assert.Equal(t, tc.calls, calls)
			})
		})
	}
}

// The replay has to pass the gate of the new credential, which a rotation may
// have closed.
func TestReplayWaitingAtGateEndsAtDeadline(t *testing.T) {
	t.Parallel()

	for name, getBody := range map[string]bool{"no body": false, "a body": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tr := transportOver(t, answers(http.StatusUnauthorized), newMint("unused"))
				require.NoError(t, tr.creds.close())
				var held gate.Gate
				held.Shut()
				n := 0
				tr.creds = tr.core.newRenewingCache("test", nil, true, renew.Config[*preparedCredential]{
					Fetch: func(context.Context, renew.Query[*preparedCredential]) (renew.Grant[*preparedCredential], error) {
						n++
						secret := fmt.Sprint("k", n)
						s := &preparedCredential{cred: APIKey(secret), name: wire.HeaderAPIKey}
						s.history = tr.core.evidence.Of(s.cred.c, evidence.Given)
						if n > 1 {
							s.gate = &held
						}
						return renew.Grant[*preparedCredential]{Value: s}, nil
					},
				})
				defer func() { assert.NoError(t, tr.creds.close()) }()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				req := request(t, http.MethodPost, "/x", nil)
				first, second := newSpyBody("body"), newSpyBody("body")
				if getBody {
					req.Body = first
					req.GetBody = func() (io.ReadCloser, error) { return second, nil }
				}
				began := time.Now()
				err := failure(tr, req.WithContext(ctx))
				require.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Equal(t, time.Minute, time.Since(began))
				if getBody {
					assert.Equal(t, 1, first.closed())
					assert.Equal(t, 1, second.closed())
				}
			})
		})
	}
}

// readsOn is the body of a response that came before its request was read:
// net/http continues to read the request until the response is closed.
type readsOn struct {
	io.Reader
	request io.Reader
}

func (r *readsOn) Close() error {
	_, err := io.Copy(io.Discard, r.request)
	return err
}

func TestBodyIsRewoundAfterItsAttempt(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusUnauthorized, http.StatusServiceUnavailable} {
		for name, failing := range map[string]bool{"": false, ", GetBody fails": true} {
			t.Run(strconv.Itoa(code)+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					src := newMint("k1")
					n := 0
					tr := transportOver(t, tripFunc(func(r *http.Request) (*http.Response, error) {
						n++
						if n > 1 {
							sent, err := io.ReadAll(r.Body)
							return reply(http.StatusOK, string(sent)), err
						}
						src.replace(APIKey("k2"))
						resp := reply(code, "")
						resp.Body = &readsOn{Reader: strings.NewReader("what it said"), request: r.Body}
						return resp, nil
					}), src)
					body := strings.NewReader("the message")
					req := request(t, http.MethodPut, "/x", io.NopCloser(body))
					req.GetBody = func() (io.ReadCloser, error) {
						if failing {
							return nil, errors.New("no more")
						}
						_, err := body.Seek(0, io.SeekStart)
						return io.NopCloser(body), err
					}
					resp, err := tr.RoundTrip(req)
					require.NoError(t, err)
					if failing {
						assert.Equal(t, code, resp.StatusCode)
						assert.Equal(t, "what it said", readAll(t, resp))
						return
					}
					assert.Equal(t, "the message", readAll(t, resp))
				})
			})
		}
	}
}
