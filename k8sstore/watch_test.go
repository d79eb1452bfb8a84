package k8sstore_test

import (
	"net/http"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/k8sstore"
)

// streams waits for the n-th stream and returns the version that it was begun at.
func streams(t *testing.T, f *fakeAPI, n int) string {
	t.Helper()
	eventually(t, func() bool { return len(f.sent("WATCH")) >= n }, "stream "+strconv.Itoa(n))
	q := f.sent("WATCH")[n-1].URL.Query()
	assert.Equal(t, "metadata.name=writer.key", q.Get("fieldSelector"))
	assert.Equal(t, "true", q.Get("allowWatchBookmarks"))
	assert.NotEmpty(t, q.Get("timeoutSeconds"))
	return q.Get("resourceVersion")
}

func TestWatch_resumesAtChangeOrBookmark(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	s := f.open(t)
	rev := save(t, s, "1", "")
	c := watched(t, s)
	require.Equal(t, seen{data: "1"}, next(t, c))
	assert.Equal(t, f.key().ResourceVersion, streams(t, f, 1))
	loads := len(f.sent(http.MethodGet))

	rev = save(t, s, "2", rev)
	require.Equal(t, seen{data: "2"}, next(t, c))
	f.cut()
	assert.Equal(t, f.key().ResourceVersion, streams(t, f, 2), "resumed at the last change")
	at := f.bookmark()
	save(t, s, "3", rev) // after the bookmark, so it is known to have come
	require.Equal(t, seen{data: "3"}, next(t, c))
	at2 := f.bookmark()
	require.Greater(t, at2, at)
	f.put("other.key", f.key())
	eventually(t, func() bool {
		f.cut()
		n := len(f.sent("WATCH"))
		return f.sent("WATCH")[n-1].URL.Query().Get("resourceVersion") == strconv.Itoa(at2)
	}, "resumed at the bookmark")
	assert.LessOrEqual(t, len(f.sent(http.MethodGet)), loads+2+2, "the record is not loaded again")
}

func TestWatch_afterGone_loadsAgain(t *testing.T) {
	t.Parallel()
	for name, inStream := range map[string]bool{"response": false, "in a stream": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeAPI(t)
			s := f.open(t)
			rev := save(t, s, "1", "")
			c := watched(t, s)
			require.Equal(t, seen{data: "1"}, next(t, c))
			streams(t, f, 1)
			f.bookmark()
			// What happens from now on is forgotten before it is seen.
			f.do(func() { f.compacted = f.version + 1000 })
			if !inStream {
				f.cut()
				eventually(t, func() bool { return len(f.sent("WATCH")) >= 2 }, "a second stream")
			}
			rev = save(t, s, "2", rev)
			f.do(func() { f.version += 1000 })
			require.Equal(t, seen{data: "2"}, next(t, c))
			save(t, s, "3", rev)
			require.Equal(t, seen{data: "3"}, next(t, c))
		})
	}
}

func TestWatch_ofMissingSecret_yieldsCreation(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	s := f.open(t)
	c := watched(t, s)
	require.ErrorIs(t, next(t, c).err, agrenting.ErrNoRecord)
	assert.Empty(t, streams(t, f, 1))
	rev := save(t, s, "1", "")
	require.Equal(t, seen{data: "1"}, next(t, c))
	f.put("writer.key", nil)
	require.ErrorIs(t, next(t, c).err, agrenting.ErrNoRecord)
	save(t, s, "2", "")
	require.Equal(t, seen{data: "2"}, next(t, c))
	_, err := s.Save(t.Context(), key, []byte("3"), rev)
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
}

func TestWatch_ofMissingSecret_ignoresStaleCache(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	s := f.open(t)
	save(t, s, "deleted", "")
	old := f.key()
	f.put("writer.key", nil)
	// A cache that is behind begins the first stream with the Secret that was deleted.
	f.before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") == "true" && len(f.sent("WATCH")) == 1 {
			f.do(func() { f.secrets["writer.key"] = old })
		} else {
			f.do(func() { delete(f.secrets, "writer.key") })
		}
		return false
	}
	c := watched(t, s)
	require.ErrorIs(t, next(t, c).err, agrenting.ErrNoRecord)
	streams(t, f, 2)
	f.do(func() { f.before = nil })
	save(t, s, "new", "")
	require.Equal(t, seen{data: "new"}, next(t, c))
}

func TestWatch_withoutPermission_ends(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") != "true" {
			return false
		}
		status(w, http.StatusForbidden, metav1.StatusReasonForbidden, denied("watch"))
		return true
	}
	s := f.open(t)
	save(t, s, "1", "")
	c := watched(t, s)
	require.Equal(t, seen{data: "1"}, next(t, c))
	require.ErrorContains(t, next(t, c).err, "needs get, update, and watch")
	_, more := <-c
	assert.False(t, more)
}

func TestWatch_whenServerGoes_endsUnavailable(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	s := f.open(t, k8sstore.WithSealingKey(sealingKey), k8sstore.WithTimeout(300*time.Millisecond))
	save(t, s, "1", "")
	c := watched(t, s)
	require.Equal(t, seen{data: "1"}, next(t, c))
	streams(t, f, 1)
	f.do(func() {
		f.before = func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
	})
	f.cut()
	require.ErrorIs(t, next(t, c).err, k8sstore.ErrUnavailable)
	_, more := <-c
	assert.False(t, more)
}

// A stream without changes and bookmarks ends after some minutes.
func TestWatch_afterQuietStreams_continuesSoon(t *testing.T) {
	t.Parallel()
	for name, exists := range map[string]bool{"Secret": true, "missing Secret": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, s := virtualFakeAPI(t)
				if exists {
					save(t, s, "1", "")
				}
				var ended time.Time
				var gaps []time.Duration
				f.before = func(w http.ResponseWriter, r *http.Request) bool {
					isWatch := r.URL.Query().Get("watch") == "true"
					if isWatch {
						quietStream(w, r)
					}
					f.do(func() {
						switch {
						case isWatch:
							ended = time.Now()
						case !ended.IsZero():
							gaps = append(gaps, time.Since(ended))
						}
					})
					return isWatch
				}
				watched(t, s)
				<-time.After(time.Hour)
				f.do(func() {
					require.Greater(t, len(gaps), 10)
					assert.Less(t, slices.Max(gaps), 400*time.Millisecond)
				})
			})
		})
	}
}

// quietStream is a stream without changes that ends at the time that the client has set.
func quietStream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	seconds, _ := strconv.Atoi(r.URL.Query().Get("timeoutSeconds"))
	select {
	case <-time.After(time.Duration(seconds) * time.Second):
	case <-r.Context().Done():
	}
}

func TestWatch_afterShortStreams_yieldsCreationSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, s := virtualFakeAPI(t)
		f.before = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("watch") != "true" || len(f.sent("WATCH")) > 10 {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			return true // ends at once
		}
		c := watched(t, s)
		require.ErrorIs(t, next(t, c).err, agrenting.ErrNoRecord)
		<-time.After(2 * time.Minute)
		require.Len(t, f.sent("WATCH"), 11, "ten short streams, with longer and longer pauses")
		created := time.Now()
		save(t, s, "1", "")
		require.Equal(t, seen{data: "1"}, next(t, c))
		assert.Less(t, time.Since(created), 400*time.Millisecond)
	})
}
