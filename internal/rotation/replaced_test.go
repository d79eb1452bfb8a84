package rotation_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// keyCalls are the calls of a rotation.
var keyCalls = map[string]func(*http.Request) bool{
	"create": func(r *http.Request) bool {
		return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/credentials")
	},
	"rotate": func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/rotate-key") },
	"list": func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/credentials")
	},
	"revoke":       func(r *http.Request) bool { return r.Method == http.MethodDelete },
	"verify":       func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/pending") },
	"authenticate": func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/authenticate") },
}

// strangers are responses that replace the platform's.
var strangers = map[string]func() *http.Response{
	"401":              func() *http.Response { return refusalOf(http.StatusUnauthorized) },
	"403":              func() *http.Response { return refusalOf(http.StatusForbidden) },
	"404":              func() *http.Response { return refusalOf(http.StatusNotFound) },
	"401 page":         func() *http.Response { return sdktest.Reply(http.StatusUnauthorized, "<html>no</html>") },
	"403 page":         func() *http.Response { return sdktest.Reply(http.StatusForbidden, "<html>no</html>") },
	"403 with message": func() *http.Response { return sdktest.Reply(http.StatusForbidden, `{"message":"Forbidden"}`) },
	"502 page":         func() *http.Response { return sdktest.Reply(http.StatusBadGateway, "<html>no</html>") },
	"302":              func() *http.Response { return sdktest.Reply(http.StatusFound, "", "Location", "/login") },
	"200 page":         func() *http.Response { return sdktest.Reply(http.StatusOK, "<html>log in</html>") },
	"empty 200":        func() *http.Response { return sdktest.Reply(http.StatusOK, "") },
	"other 200":        func() *http.Response { return sdktest.Reply(http.StatusOK, `{"status":"ok"}`) },
	"truncated 200":    func() *http.Response { return sdktest.Reply(http.StatusOK, `{"data":{"api_k`) },
}

func refusalOf(status int) *http.Response {
	code := strings.ToUpper(strings.ReplaceAll(http.StatusText(status), " ", "_"))
	return sdktest.Reply(status, `{"data":null,"meta":{},"errors":[{"code":"`+code+`","message":"no"}]}`)
}

// replacing lets the platform do what it is asked for, and replaces the responses to
// the first calls of one kind.
type replacing struct {
	base    http.RoundTripper
	matches func(*http.Request) bool
	with    func() *http.Response
	instead bool // the platform is not asked

	mu    sync.Mutex
	times int
}

func (r *replacing) set(times int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.times = times
}

// next reports whether the next response is replaced.
func (r *replacing) next() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.times--
	return r.times >= 0
}

func (r *replacing) RoundTrip(req *http.Request) (*http.Response, error) {
	if !r.matches(req) || !r.next() {
		return r.base.RoundTrip(req)
	}
	if !r.instead {
		resp, err := r.base.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		_ = resp.Body.Close()
	}
	other := r.with()
	other.Request = req
	return other, nil
}

// The platform does what it is asked for, and another party answers. There may be an
// error, but no request fails, and at the end one key is live.
func TestReplacedResponsesLeaveOneKey(t *testing.T) {
	t.Parallel()
	n := 0
	for _, strategy := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		for _, owner := range []bool{false, true} {
			for call, matches := range keyCalls {
				for stranger, with := range strangers {
					for _, times := range []int{1, sdktest.AskAttempts} {
						n++
						if sample.Fewer && n%3 != 0 {
							continue // others in each run, because the order of the maps is random
						}
						name := fmt.Sprintf("%s, owner %v, %d times %s in place of %s", strategy, owner, times, stranger, call)
						t.Run(name, func(t *testing.T) {
							t.Parallel()
							synctest.Test(t, func(t *testing.T) {
								w := sdktest.NewRotationWorld(t)
								store := agrenting.MemoryStore()
								base := &replacing{base: w.Server.Transport(), matches: matches, with: with}
								p := agrenting.RotationPolicy{Strategy: strategy, KeyID: w.Key.ID, Every: -1}
								if owner {
									p.Owner = agrenting.Static(agrenting.UserToken(w.Owner.Secret))
								}
								c := w.Client(store, p, agrenting.WithTransport(base))
								require.NoError(t, w.Call(c))
								base.set(times)
								_, err := c.Rotate(t.Context())
								if times == 1 && !believed(stranger) {
									require.NoError(t, err, "a single response does not end a rotation")
								}
								base.set(0)
								require.NoError(t, w.Call(c), "whatever has become of the rotation: %v", err)
								_, err = c.Rotate(t.Context())
								require.NoError(t, err)
								w.OneLiveKey(store)
								require.NoError(t, w.Call(c))
								require.NoError(t, c.Close())
							})
						})
					}
				}
			}
		}
	}
}

// believed reports whether a response is in the platform's format and contradicts
// nothing that the platform says.
func believed(stranger string) bool { return stranger == "403" || stranger == "404" }

// A gateway refuses everything that is sent with the key, in the platform's format, for
// so long that the SDK takes the key for dead. The owner issues another one.
func TestKeyWronglyConsideredDead(t *testing.T) {
	t.Parallel()
	for _, strategy := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		for _, owner := range []bool{false, true} {
			for n := range 12 {
				t.Run(fmt.Sprintf("%s, owner %v, %d refusals", strategy, owner, n), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { refuseKey(t, strategy, owner, n) })
				})
			}
		}
	}
}

func refuseKey(t *testing.T, strategy agrenting.Strategy, owner bool, times int) {
	t.Helper()
	w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionsEndingWithKey())
	store := agrenting.MemoryStore()
	base := &replacing{base: w.Server.Transport(), with: strangers["401"], instead: true, matches: func(r *http.Request) bool {
		return sdktest.SecretOf(r.Header) == w.Key.Secret && !keyCalls["authenticate"](r)
	}}
	p := agrenting.RotationPolicy{Strategy: strategy, KeyID: w.Key.ID, Every: -1}
	if owner {
		p.Owner = agrenting.Static(agrenting.UserToken(w.Owner.Secret))
	}
	c := w.Client(store, p, agrenting.WithTransport(base))
	require.NoError(t, w.Call(c))
	base.set(times)
	_, err := c.Rotate(t.Context())
	base.set(0)
	if times <= 3 {
		require.NoError(t, err, "one refusal of a call, and two of the question")
	}
	require.NoError(t, w.Call(c), "%v", err)
	if err == nil {
		w.OneLiveKey(store)
	}
	_, err = c.Rotate(t.Context())
	require.NoError(t, err)
	w.OneLiveKey(store)
	require.NoError(t, c.Close())
}

// A page that replaces the list of keys does not end a rotation that may have left a key.
func TestLeftoverKeyIsSearchedUntilListIsReadable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, KeyID: w.Key.ID, Every: -1})
		require.NoError(t, w.Call(c))
		w.Server.Fault(sdktest.RouteCreateKey, agrentingtest.Page(http.StatusBadGateway).AfterServing())
		w.Server.Fault(routeListKeys, agrentingtest.Page(http.StatusForbidden).Times(sdktest.AskAttempts))
		_, err := c.Rotate(t.Context())
		require.ErrorContains(t, err, "forget", "the outcome of the first call was unknown")
		rec, _, lerr := sdktest.LoadRecord(t.Context(), store)
		require.NoError(t, lerr)
		require.NotNil(t, rec.Intent)
		assert.EqualValues(t, 2, rec.Generation)
		assert.True(t, rec.Previous.IsZero())
		require.NoError(t, w.Call(c))
		res, err := c.Rotate(t.Context())
		require.NoError(t, err)
		assert.True(t, res.Recovered)
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

// If every outcome was known, nothing can be left of this rotation.
func TestUnreadableListDoesNotFailRotation(t *testing.T) {
	t.Parallel()
	for _, strategy := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		for name, fault := range map[string]agrentingtest.Fault{
			"page": agrentingtest.Page(http.StatusForbidden), "refusal": agrentingtest.Status(http.StatusForbidden, ""),
		} {
			t.Run(strategy.String()+", "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewRotationWorld(t)
					store := agrenting.MemoryStore()
					c := w.Client(store, agrenting.RotationPolicy{Strategy: strategy, KeyID: w.Key.ID, Every: -1})
					require.NoError(t, w.Call(c))
					w.Server.Fault(routeListKeys, fault.Always())
					_, err := c.Rotate(t.Context())
					require.NoError(t, err)
					w.OneLiveKey(store)
					require.NoError(t, c.Close())
				})
			})
		}
	}
}

// A page in place of each response to a revocation does not prevent later rotations.
func TestWebPageAsRevocationResponseKeepsRotationOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, KeyID: w.Key.ID})
		require.NoError(t, w.Call(c))
		w.Server.Fault(routeRevokeKey, agrentingtest.Page(http.StatusForbidden).Always())
		for range 400 {
			sdktest.Advance(24 * time.Hour)
			require.NoError(t, w.Call(c))
		}
		rec, _, err := sdktest.LoadRecord(t.Context(), store)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, rec.Generation, uint64(4))
		w.Server.ClearFaults()
		sdktest.Advance(100 * 24 * time.Hour)
		require.NoError(t, w.Call(c))
		live := w.Server.LiveKeys(w.Agent.ID)
		assert.Len(t, live, 2, "all that rotations have made are revoked but the current one; the initial key has no mark")
		require.NoError(t, c.Close())
	})
}

// Pages say nothing about the key, so the 401 that came before is not believed.
func TestPagesInPlaceOfTheVerdict(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, KeyID: w.Key.ID, Every: -1})
		require.NoError(t, w.Call(c))
		w.Server.Fault(sdktest.RouteCreateKey, agrentingtest.Status(http.StatusUnauthorized, ""))
		w.Server.Fault(sdktest.RouteVerify, agrentingtest.Page(http.StatusUnauthorized).Times(3))
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

// The first attempt may have created a key, whatever the platform says of the second.
func TestRefusalAfterAnUnknownOutcomeLeavesNoKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, KeyID: w.Key.ID, Every: -1})
		require.NoError(t, w.Call(c))
		w.Server.Fault(sdktest.RouteCreateKey, agrentingtest.Page(http.StatusBadGateway).AfterServing())
		w.Server.Fault(sdktest.RouteCreateKey, agrentingtest.Status(http.StatusForbidden, ""))
		_, err := c.Rotate(t.Context())
		require.ErrorIs(t, err, agrenting.ErrForbidden)
		assert.Equal(t, w.Key.Secret, w.OneLiveKey(store).Current.Credential.Reveal())
		require.NoError(t, c.Close())
	})
}

// A process that takes a rotation over does not know what the one before has created.
func TestResumedRotationEndsAfterListIsRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := w.AgedStore(0, &record.Intent{
			Key: wire.NewUUID(), Strategy: agrenting.Overlap.String(), Stage: string(agrenting.StageIssue),
			From: agrenting.APIKey(w.Key.Secret).Fingerprint(), Generation: 2, Started: sdktest.WallNow(),
		})
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, Every: -1})
		w.Server.Fault(routeListKeys, agrentingtest.Page(http.StatusForbidden).Times(sdktest.AskAttempts))
		_, err := c.Rotate(t.Context())
		e, ok := errors.AsType[*agrenting.RotationError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, agrenting.StageForget, e.Stage)
		_, err = c.Rotate(t.Context())
		require.NoError(t, err)
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

// An old intent whose response was lost is not repeated by the owner: if the platform has
// forgotten it, the call would rotate another key.
func TestOwnerDoesNotRepeatAnOldRotation(t *testing.T) {
	t.Parallel()
	for age, calls := range map[time.Duration]int{time.Hour: 2, 25 * time.Hour: 1, -25 * time.Hour: 1} {
		t.Run(age.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionsEndingWithKey())
				store := agrenting.MemoryStore()
				p := agrenting.RotationPolicy{
					Strategy: agrenting.InPlace, Every: -1, Owner: agrenting.Static(agrenting.UserToken(w.Owner.Secret)),
				}
				first := w.Client(store, p)
				require.NoError(t, w.Call(first))
				w.Server.Fault(sdktest.RouteRotate, agrentingtest.Page(http.StatusBadGateway).AfterServing().Always())
				_, err := first.Rotate(t.Context())
				require.Error(t, err)
				require.NoError(t, first.Close())
				w.Server.ClearFaults()
				w.Server.ResetLog()
				rec, rev, err := sdktest.LoadRecord(t.Context(), store)
				require.NoError(t, err)
				require.NotNil(t, rec.Intent)
				rec.Intent.Started = rec.Intent.Started.Add(-age)
				_, err = sdktest.SaveRecord(t.Context(), store, rec, rev)
				require.NoError(t, err)
				c := w.Client(store, p)
				_, err = c.Rotate(t.Context())
				require.NoError(t, err)
				assert.Equal(t, calls, w.Server.Count(sdktest.RouteRotate), "one by the key that is dead, and perhaps one by the owner")
				w.OneLiveKey(store)
				require.NoError(t, c.Close())
			})
		})
	}
}
