package agrenting

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// refusingStore can be read, and refuses what is saved with an error, if it has one.
type refusingStore struct {
	KeyStore
	err atomic.Pointer[error]
}

func refusing(store KeyStore, err error) *refusingStore {
	s := &refusingStore{KeyStore: store}
	s.err.Store(&err)
	return s
}

func (s *refusingStore) Save(ctx context.Context, rec KeyRecord, prev Revision) (Revision, error) {
	if err := *s.err.Load(); err != nil {
		return "", err
	}
	return s.KeyStore.Save(ctx, rec, prev)
}

var errDiskFull = errors.New("no space left on device")

func TestAnEmptyStoreThatRefusesTheSeedFailsNobody(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{"read-only": ErrReadOnlyStore, "full": errDiskFull} {
		for _, session := range []bool{false, true} {
			if session {
				name += ", with sessions"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newRotationWorld(t)
					store := refusing(MemoryStore(Credential{}), refusal)
					var told atomic.Int64
					opts := []Option{WithObserver(func(e Event) {
						if e.Type == EventStoreFailed {
							told.Add(1)
						}
					})}
					if session {
						opts = append(opts, WithSession())
					}
					c := w.client(store, RotationPolicy{Every: -1, Strategy: InPlace}, opts...)
					for range 600 {
						require.NoError(t, w.call(c))
						advance(time.Second)
					}
					assert.Positive(t, told.Load())
					assert.LessOrEqual(t, told.Load(), int64(30), "it is not told at every look")
					_, err := c.Rotate(t.Context())
					require.ErrorIs(t, err, refusal, "nothing is rotated that could not be saved")
					require.NoError(t, c.Close(), "the seed is where it was")

					c = w.client(store, RotationPolicy{Every: -1, Strategy: InPlace}, opts...)
					require.NoError(t, w.call(c))
					store.err.Store(new(error))
					advance(2 * time.Minute)
					require.NoError(t, w.call(c))
					rec := w.oneLiveKey(store)
					assert.Equal(t, w.key.Secret, rec.Current.Credential.Reveal(), "it is saved when it can be")
					_, err = c.Rotate(t.Context())
					require.NoError(t, err)
					require.NoError(t, w.call(c))
					w.oneLiveKey(store)
					require.NoError(t, c.Close())
				})
			})
		}
	}
}
