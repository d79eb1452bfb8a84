package k8sstore_test

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
	"github.com/agrenting/agrenting-go/k8sstore"
)

func plainAndSealed() map[string]k8sstore.Option {
	return map[string]k8sstore.Option{"sealed": k8sstore.WithSealingKey(sealingKey), "plain": k8sstore.WithPlaintext()}
}

func TestConformance_fakeServer(t *testing.T) {
	t.Parallel()
	for name, opt := range plainAndSealed() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeAPI(t)
			storetest.Test(t, func(t *testing.T) agrenting.Store {
				t.Helper()
				return f.open(t, opt)
			}, storetest.Delete(func(_ *testing.T, _ agrenting.Store, name string) {
				f.put("writer."+name, nil)
			}), storetest.ReadOnly(func(t *testing.T) agrenting.Store {
				t.Helper()
				f := newFakeAPI(t)
				f.before = func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method == http.MethodGet {
						return false
					}
					status(w, http.StatusForbidden, metav1.StatusReasonForbidden, denied("create"))
					return true
				}
				return f.open(t, opt)
			}))
		})
	}
}

func TestSecret_isSealedAndLabeled(t *testing.T) {
	t.Parallel()
	const secret = "agr_test_sealedsealedsealed"
	for name, opt := range plainAndSealed() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeAPI(t)
			save(t, f.open(t, opt), secret, "")
			s := f.key()
			assert.Equal(t, k8sstore.SecretType, s.Type)
			assert.Equal(t, "writer", s.Labels[k8sstore.Label])
			assert.Nil(t, s.Immutable)
			assert.Equal(t, name == "plain", strings.Contains(string(s.Data["record"]), secret))
		})
	}
}

func TestSealed_isBoundToNamespaceAndName(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	save(t, f.open(t), "x", "")
	moved := f.key()
	moved.Labels[k8sstore.Label] = "other"
	f.put("other.key", moved)
	other := open(t, k8sstore.Config{REST: f.config(), Namespace: namespace, Name: "other"})
	_, err := other.Load(t.Context(), key)
	require.ErrorIs(t, err, agrenting.ErrSealed)
	require.ErrorContains(t, err, "production/other/")
}

func TestSave_recognizesItsOwnWrite(t *testing.T) {
	t.Parallel()
	for name, opt := range plainAndSealed() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeAPI(t)
			s, other := f.open(t, opt), f.open(t, opt)
			var lose atomic.Int64
			then := func() {}
			f.after = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodGet || lose.Add(-1) < 0 {
					return false
				}
				then()
				status(w, http.StatusGatewayTimeout, metav1.StatusReasonTimeout, "lost")
				return true
			}
			var rev agrenting.Revision
			for range 3 {
				lose.Store(1)
				rev = save(t, s, "the same data", rev)
				_, now := load(t, other)
				assert.Equal(t, rev, now)
			}
			// Another writer with the same data replaces it before its outcome is known.
			var theirs agrenting.Revision
			then = func() {
				_, now := load(t, other)
				theirs = save(t, other, "the same data", now)
			}
			lose.Store(1)
			_, err := s.Save(t.Context(), key, []byte("the same data"), rev)
			require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
			_, now := load(t, other)
			assert.Equal(t, theirs, now)
		})
	}
}

// An attempt that is still processed when the next one begins makes that one conflict.
func TestSave_afterSlowOwnWrite_succeeds(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	s := f.open(t)
	conflicts := 0
	f.after = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			return false
		}
		conflicts++
		status(w, http.StatusConflict, metav1.StatusReasonConflict, "the object has been modified")
		return true
	}
	rev := save(t, s, "1", "")
	rev = save(t, s, "2", rev)
	data, now := load(t, s)
	assert.Equal(t, "2", data)
	assert.Equal(t, rev, now)
	assert.Equal(t, 2, conflicts)
}

// A quota whose own update has failed is a 409, too.
func TestSave_afterConflictOfAnotherObject_isRepeated(t *testing.T) {
	t.Parallel()
	const message = `Operation cannot be fulfilled on resourcequotas "all": the object has been modified`
	for name, tc := range map[string]struct {
		conflicts int64
		loads     bool // whether the record can be loaded after a conflict
	}{
		"passes": {3, true}, "remains": {math.MaxInt64, true}, "record cannot be loaded": {math.MaxInt64, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeAPI(t)
			s := f.open(t, k8sstore.WithSealingKey(sealingKey), k8sstore.WithTimeout(time.Second))
			var conflicts atomic.Int64
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.Method != http.MethodGet && conflicts.Add(1) <= tc.conflicts:
					status(w, http.StatusConflict, metav1.StatusReasonConflict, message)
				case r.Method == http.MethodGet && conflicts.Load() > 0 && !tc.loads:
					status(w, http.StatusInternalServerError, metav1.StatusReasonInternalError, "etcd")
				default:
					return false
				}
				return true
			}
			rev, err := s.Save(t.Context(), key, []byte("1"), "")
			if tc.conflicts == 3 {
				require.NoError(t, err)
				_, now := load(t, s)
				assert.Equal(t, rev, now)
				return
			}
			require.ErrorIs(t, err, k8sstore.ErrUnavailable)
			require.NotErrorIs(t, err, agrenting.ErrConflictingWrite)
			if tc.loads {
				require.ErrorContains(t, err, message)
			}
		})
	}
}

func TestSave_keepsWhatOthersHaveAdded(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	s := f.open(t)
	save(t, s, "1", "")
	edited := f.key()
	edited.Labels["backup"], edited.Annotations["note"], edited.Finalizers = "no", "ours", []string{"example.com/keep"}
	f.put("writer.key", edited)
	_, rev := load(t, s)
	save(t, s, "2", rev)
	got := f.key()
	assert.Equal(t, "no", got.Labels["backup"])
	assert.Equal(t, "ours", got.Annotations["note"])
	assert.Equal(t, []string{"example.com/keep"}, got.Finalizers)
}

func TestSave_refusesForeignSecrets(t *testing.T) {
	t.Parallel()
	ours := func() *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{k8sstore.Label: "writer"}},
			Type:       k8sstore.SecretType, Data: map[string][]byte{"record": []byte("x")},
		}
	}
	for name, change := range map[string]func(s *corev1.Secret){
		"type":  func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque },
		"label": func(s *corev1.Secret) { s.Labels[k8sstore.Label] = "reader" },
		"none":  func(s *corev1.Secret) { s.Labels = nil },
		"data":  func(s *corev1.Secret) { s.Data = map[string][]byte{"password": []byte("hunter2")} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeAPI(t)
			foreign := ours()
			change(foreign)
			f.put("writer.key", foreign)
			before := f.key()
			s := f.open(t)
			check := func(err error) {
				t.Helper()
				require.ErrorIs(t, err, agrenting.ErrInvalidRecord)
				require.NotErrorIs(t, err, agrenting.ErrNoRecord)
				require.ErrorContains(t, err, `"writer.key"`)
				assert.NotContains(t, err.Error(), "hunter2")
			}
			_, err := s.Load(t.Context(), key)
			check(err)
			for _, rev := range []agrenting.Revision{"", agrenting.Revision(string(before.UID) + "." + before.ResourceVersion + ".")} {
				_, err = s.Save(t.Context(), key, []byte("y"), rev)
				check(err)
			}
			check(next(t, watched(t, s)).err)
			assert.Equal(t, before, f.key())
		})
	}
}

func TestSave_afterRecreation_conflicts(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	s := f.open(t)
	rev := save(t, s, "1", "")
	old := f.key()
	f.put("writer.key", nil)
	_, err := s.Save(t.Context(), key, []byte("2"), rev)
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
	// Recreated with the same resource version, as after the restore of a backup.
	f.put("writer.key", old)
	f.do(func() { f.secrets["writer.key"].ResourceVersion = old.ResourceVersion })
	_, err = s.Save(t.Context(), key, []byte("2"), rev)
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
}

// After etcd was restored without a revision bump, a Secret has its UID and again the
// resource version of another write.
func TestSave_afterRestoreOfEtcd_conflicts(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	s, other := f.open(t), f.open(t)
	rev := save(t, s, "1", "")
	backup, version := f.key(), 0
	f.do(func() { version = f.version })
	rev = save(t, s, "2", rev)
	newest := f.key()
	f.do(func() { f.secrets["writer.key"], f.version = backup, version })
	_, old := load(t, other)
	save(t, other, "other", old)
	require.Equal(t, newest.UID, f.key().UID)
	require.Equal(t, newest.ResourceVersion, f.key().ResourceVersion)
	_, err := s.Save(t.Context(), key, []byte("3"), rev)
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
	data, now := load(t, s)
	assert.Equal(t, "other", data)
	assert.NotEqual(t, rev, now)
}

func TestSave_sendsVersionAndUID(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	s := f.open(t)
	rev := save(t, s, "1", "")
	// The Secret changes between the load and the update of a Save.
	f.before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			f.put("writer.key", f.key())
		}
		return false
	}
	_, err := s.Save(t.Context(), key, []byte("2"), rev)
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
}

func TestSave_withoutVersion_isRefused(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	s := f.open(t, k8sstore.WithSealingKey(sealingKey), k8sstore.WithTimeout(400*time.Millisecond))
	save(t, s, "1", "")
	f.do(func() { f.secrets["writer.key"].ResourceVersion = "" })
	_, err := s.Load(t.Context(), key)
	require.ErrorContains(t, err, "without a UID or a resource version")
	_, err = s.Save(t.Context(), key, []byte("2"), "")
	require.Error(t, err)
	assert.Empty(t, f.sent(http.MethodPut))
}

func TestErrors_nameCauseAndRemedy(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		code   int
		reason metav1.StatusReason
		want   string
		is     error
	}{
		"webhook":      {http.StatusForbidden, metav1.StatusReasonForbidden, "load", nil},
		"unauthorized": {http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "does not accept the credentials", nil},
		"invalid":      {http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "load", nil},
		"busy":         {http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "no success within", k8sstore.ErrUnavailable},
		"down":         {http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "no success within", k8sstore.ErrUnavailable},
		"error":        {http.StatusInternalServerError, metav1.StatusReasonInternalError, "no success within", k8sstore.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			secret := "agr_live_0123456789abcdefghij"
			encoded := base64.StdEncoding.EncodeToString([]byte(secret))
			f := newFakeAPI(t)
			f.before = func(w http.ResponseWriter, _ *http.Request) bool {
				status(w, tc.code, tc.reason, "webhook denied the request: "+secret+" "+encoded)
				return true
			}
			s := f.open(t, k8sstore.WithSealingKey(sealingKey), k8sstore.WithTimeout(200*time.Millisecond))
			_, err := s.Load(t.Context(), key)
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, "webhook denied the request: [hidden] [hidden]")
			if tc.is != nil {
				require.ErrorIs(t, err, tc.is)
			} else {
				require.NotErrorIs(t, err, k8sstore.ErrUnavailable)
			}
			var e interface{ Status() metav1.Status }
			require.ErrorAs(t, err, &e)
			assert.NotContains(t, e.Status().Message, secret)
			_, err = s.Save(t.Context(), key, []byte(secret), "")
			assert.NotContains(t, err.Error(), secret)
			assert.NotContains(t, err.Error(), encoded)
		})
	}
}

func TestForbidden_withoutDenial_isNotReadOnly(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		message  string
		readOnly bool
	}{
		"role":        {denied("create"), true},
		"quota":       {`secrets "writer.key" is forbidden: exceeded quota: all, requested: secrets=1, used: secrets=1, limited: secrets=1`, false},
		"terminating": {`secrets "writer.key" is forbidden: unable to create new content in namespace production because it is being terminated`, false},
		"webhook":     {`admission webhook "policy.example.com" denied the request: no secrets here`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeAPI(t)
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodGet {
					return false
				}
				status(w, http.StatusForbidden, metav1.StatusReasonForbidden, tc.message)
				return true
			}
			_, err := f.open(t).Save(t.Context(), key, []byte("x"), "")
			require.ErrorContains(t, err, tc.message)
			require.NotErrorIs(t, err, k8sstore.ErrUnavailable)
			hint := `The service account needs get, update, and watch on the Secret "writer.key"`
			if tc.readOnly {
				require.ErrorIs(t, err, agrenting.ErrReadOnlyStore)
				require.ErrorContains(t, err, hint)
			} else {
				require.NotErrorIs(t, err, agrenting.ErrReadOnlyStore)
				assert.NotContains(t, err.Error(), hint)
			}
			assert.Len(t, f.sent(http.MethodPost), 1, "it is not repeated")
		})
	}
}

func TestRedirect_isNotFollowed(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			t.Parallel()
			elsewhere, f := newFakeAPI(t), newFakeAPI(t)
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, elsewhere.srv.URL+r.URL.String(), code)
				return true
			}
			cfg := f.config()
			cfg.BearerToken = "hunter2"
			s := open(t, k8sstore.Config{REST: cfg, Namespace: namespace, Name: "writer"})
			_, err := s.Load(t.Context(), key)
			require.ErrorContains(t, err, "The server redirects")
			require.NotErrorIs(t, err, agrenting.ErrNoRecord)
			_, err = s.Save(t.Context(), key, []byte("x"), "")
			require.ErrorContains(t, err, "The server redirects")
			// The watch and the update are redirected, too.
			f.do(func() { f.before = nil })
			rev := save(t, s, "1", "")
			f.do(func() {
				f.before = func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method == http.MethodGet && r.URL.Query().Get("watch") != "true" {
						return false
					}
					http.Redirect(w, r, elsewhere.srv.URL+r.URL.String(), code)
					return true
				}
			})
			_, err = s.Save(t.Context(), key, []byte("2"), rev)
			require.ErrorContains(t, err, "The server redirects")
			c := watched(t, s)
			require.Equal(t, seen{data: "1"}, next(t, c))
			require.ErrorContains(t, next(t, c).err, "The server redirects")
			for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, "WATCH"} {
				assert.Empty(t, elsewhere.sent(method), method)
			}
		})
	}
}

func TestLoad_withProxyNotFound_isNotMissing(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	f.before = func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "<html>nothing here</html>", http.StatusNotFound)
		return true
	}
	s := f.open(t)
	_, err := s.Load(t.Context(), key)
	require.Error(t, err)
	require.NotErrorIs(t, err, agrenting.ErrNoRecord)
}

func TestSave_inMissingNamespace_saysSo(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		status(w, http.StatusNotFound, metav1.StatusReasonNotFound, `namespaces "production" not found`)
		return true
	}
	_, err := f.open(t).Save(t.Context(), key, []byte("x"), "")
	require.ErrorContains(t, err, `Create the namespace "production"`)
	require.NotErrorIs(t, err, agrenting.ErrConflictingWrite)
}

func TestOperations_withoutServer_endInTime(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	for name, addr := range map[string]string{"silent": silent.Addr().String(), "refusing": closed.Addr().String()} {
		s := open(t, k8sstore.Config{REST: &rest.Config{Host: "http://" + addr}, Namespace: namespace, Name: "writer"},
			k8sstore.WithSealingKey(sealingKey), k8sstore.WithTimeout(400*time.Millisecond))
		for what, op := range map[string]func(ctx context.Context) error{
			"load": func(ctx context.Context) error { _, err := s.Load(ctx, key); return err },
			"save": func(ctx context.Context) error { _, err := s.Save(ctx, key, nil, ""); return err },
			"watch": func(ctx context.Context) (err error) {
				n := 0
				for _, err = range s.Watch(ctx, key) {
					n++
				}
				assert.LessOrEqual(t, n, 1)
				return err
			},
		} {
			began := time.Now()
			err := op(t.Context())
			require.ErrorIs(t, err, k8sstore.ErrUnavailable, "%s: %s", name, what)
			require.NotErrorIs(t, err, agrenting.ErrNoRecord)
			assert.Less(t, time.Since(began), 3*time.Second, "%s: %s", name, what)

			brief, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			err = op(brief)
			cancel()
			if what != "watch" {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
		}
	}
}

func TestSilentConnection_isReplaced(t *testing.T) {
	t.Parallel()
	for name, deadline := range map[string]time.Duration{
		"no deadline": time.Minute,
		"one second":  time.Second, // as for the holder of a lease
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := unstartedFakeAPI(t)
			f.srv.EnableHTTP2 = true // one connection for all requests
			f.srv.StartTLS()
			addr := f.srv.Listener.Addr().String()
			p, err := fleettest.NewProxy(addr)
			require.NoError(t, err)
			t.Cleanup(p.Close)
			var silent atomic.Bool
			cfg := &rest.Config{Host: f.srv.URL}
			cfg.CAData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.srv.Certificate().Raw})
			cfg.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
				target := p.Addr()
				if silent.Load() {
					target = addr
				}
				return new(net.Dialer).DialContext(ctx, network, target)
			}
			s := open(t, k8sstore.Config{REST: cfg, Namespace: namespace, Name: "writer"})
			rev := save(t, s, "1", "")
			assert.Equal(t, "HTTP/2.0", f.sent(http.MethodPost)[0].Proto)
			silent.Store(true)
			p.Freeze() // the connection stays open
			began := time.Now()
			for range 5 { // a ping would find out after 45 s
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				_, err = s.Save(ctx, key, []byte("2"), rev)
				cancel()
				if !errors.Is(err, context.DeadlineExceeded) {
					break
				}
			}
			require.NoError(t, err)
			t.Logf("saved over another connection after %v", time.Since(began).Round(time.Millisecond))
		})
	}
}

func TestLimiter_isTheStoresOwn(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.config()
	cfg.QPS, cfg.Burst, cfg.Timeout, cfg.UserAgent = 0.001, 1, time.Nanosecond, "program"
	given := rest.CopyConfig(cfg)
	given.Dial = nil
	s := open(t, k8sstore.Config{REST: cfg, Namespace: namespace, Name: "writer"})
	rev := save(t, s, "0", "")
	for n := range 20 {
		rev = save(t, s, strconv.Itoa(n), rev)
	}
	now := rest.CopyConfig(cfg)
	now.Dial = nil
	assert.Equal(t, given, now, "the caller's configuration is unchanged")
	for _, r := range f.sent(http.MethodPut) {
		assert.Equal(t, "agrenting-go/"+agrenting.Version+" k8sstore", r.UserAgent())
	}
}

func TestLimiter_countsRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, s := virtualFakeAPI(t)
		began := time.Now()
		var rev agrenting.Revision
		for n := range 200 {
			rev = save(t, s, strconv.Itoa(n), rev)
		}
		sent := len(f.sent(http.MethodGet)) + len(f.sent(http.MethodPost)) + len(f.sent(http.MethodPut))
		assert.Equal(t, 400, sent)
		assert.InDelta(t, 6, time.Since(began).Seconds(), 0.1, "100 requests at once, 300 at 50 a second")
	})
}

func TestLimiter_waitEndsWithContext(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	s := f.open(t, k8sstore.WithSealingKey(sealingKey), k8sstore.WithTimeout(time.Minute))
	ctx, cancel := context.WithCancel(t.Context())
	const calls = 400 // the burst is 100
	done := make(chan error, calls)
	for range calls {
		go func() { _, err := s.Load(ctx, key); done <- err }()
	}
	eventually(t, func() bool { return len(f.sent(http.MethodGet)) > 80 }, "the burst is used up")
	cancel()
	canceled := 0
	for range calls {
		select {
		case err := <-done:
			if errors.Is(err, context.Canceled) {
				canceled++
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a call waits for the limiter although its context has ended")
		}
	}
	assert.Greater(t, canceled, 50)
	assert.Less(t, len(f.sent(http.MethodGet)), 350)
}
