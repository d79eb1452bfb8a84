package agrenting_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
)

func sealed(t *testing.T, s agrenting.KeyStore, key agrenting.SealingKey, older ...agrenting.SealingKey) agrenting.KeyStore {
	t.Helper()
	s, err := agrenting.Sealed(s, key, older...)
	require.NoError(t, err)
	return s
}

func emptyStore() agrenting.KeyStore { return agrenting.MemoryStore(agrenting.Credential{}) }

func save(t *testing.T, s agrenting.KeyStore, rec agrenting.KeyRecord, previous agrenting.Revision) agrenting.Revision {
	t.Helper()
	rev, err := s.Save(t.Context(), rec, previous)
	require.NoError(t, err)
	return rev
}

func load(t *testing.T, s agrenting.KeyStore) (agrenting.KeyRecord, agrenting.Revision) {
	t.Helper()
	rec, rev, err := s.Load(t.Context())
	require.NoError(t, err)
	return rec, rev
}

const (
	currentSecret  = "sk_current_0123456789"
	pendingSecret  = "sk_pending_0123456789"
	previousSecret = "sk_previous_0123456789"
	lifelineSecret = "session_lifeline_0123456789"
)

// rotating is a record in the middle of a rotation whose lease is over.
func rotating() agrenting.KeyRecord {
	return agrenting.KeyRecord{
		Generation: 4,
		Current:    agrenting.StoredKey{Credential: agrenting.APIKey(currentSecret), ID: "key-2", AgentID: "agent-1"},
		Pending:    agrenting.StoredKey{Credential: agrenting.APIKey(pendingSecret), ID: "key-3", AgentID: "agent-1"},
		Previous:   agrenting.StoredKey{Credential: agrenting.APIKey(previousSecret), ID: "key-1", AgentID: "agent-1"},
		Intent: &agrenting.Intent{
			Key: "intent-1", Strategy: agrenting.InPlace, Stage: agrenting.StageIssue, Generation: 5,
			Lifeline: agrenting.SessionToken(lifelineSecret, time.Now().Add(time.Hour)),
		},
		Ancestors: []string{"sha256:aaaaaaaaaa"},
	}
}

// sealedInside is what a store holds after a record was saved through its seal.
func sealedInside(t *testing.T, key agrenting.SealingKey) (inner agrenting.KeyStore, rec agrenting.KeyRecord, rev agrenting.Revision) {
	t.Helper()
	inner = emptyStore()
	save(t, sealed(t, inner, key), rotating(), "")
	rec, rev = load(t, inner)
	return inner, rec, rev
}

func TestSealedStoresConform(t *testing.T) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		storetest.TestStore(t, func(t *testing.T) agrenting.KeyStore {
			t.Helper()
			s := sealed(t, emptyStore(), agrenting.NewSealingKey())
			assert.Implements(t, (*agrenting.KeyWatcher)(nil), s)
			return s
		})
	})
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		storetest.TestSharedStore(t, func(t *testing.T) func() agrenting.KeyStore {
			t.Helper()
			path, key, older := storePath(t), agrenting.NewSealingKey(), agrenting.NewSealingKey()
			return func() agrenting.KeyStore {
				s := sealed(t, fileStore(t, path), key, older)
				_, watches := s.(agrenting.KeyWatcher)
				assert.False(t, watches, "files tell nothing")
				return s
			}
		})
	})
}

func TestSealedFileShowsNoSecretAndEverythingElse(t *testing.T) {
	t.Parallel()
	path := storePath(t)
	key := agrenting.NewSealingKey()
	save(t, sealed(t, fileStore(t, path), key), rotating(), "")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, s := range []string{currentSecret, pendingSecret, previousSecret, lifelineSecret, key.Reveal()} {
		assert.NotContains(t, string(b), s)
	}
	for _, s := range []string{"key-1", "key-2", "key-3", "agent-1", "intent-1", "sha256:aaaaaaaaaa"} {
		assert.Contains(t, string(b), s)
	}
	assert.Equal(t, 4, strings.Count(string(b), `"sealed1.`))
}

func TestEverySaveSealsAnew(t *testing.T) {
	t.Parallel()
	key := agrenting.NewSealingKey()
	inner, first, _ := sealedInside(t, key)
	s := sealed(t, inner, key)
	rec, rev := load(t, s)
	save(t, s, rec, rev)
	second, _ := load(t, inner)
	assert.False(t, first.Current.Credential.Equal(second.Current.Credential))
	assert.False(t, second.Current.Credential.Equal(second.Previous.Credential))
}

func TestWrongSealingKeyOpensAndHarmsNothing(t *testing.T) {
	t.Parallel()
	path := storePath(t)
	right, wrong := agrenting.NewSealingKey(), agrenting.NewSealingKey()
	save(t, sealed(t, fileStore(t, path), right), rotating(), "")
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	s := sealed(t, fileStore(t, path), wrong)
	_, rev, err := s.Load(t.Context())
	require.ErrorIs(t, err, agrenting.ErrSealed)
	require.NotErrorIs(t, err, agrenting.ErrNoCredential, "or a seed would be planted over it")
	for _, want := range []string{"wrong sealing key", right.Fingerprint(), wrong.Fingerprint(), path} {
		require.ErrorContains(t, err, want)
	}
	_, err = s.Save(t.Context(), rotating(), rev)
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(before), string(after))
}

func TestSealedSecretsOpenNowhereElse(t *testing.T) {
	t.Parallel()
	key := agrenting.NewSealingKey()
	_, other, _ := sealedInside(t, key) // the same record, sealed another time
	other.Generation++
	for name, change := range map[string]func(r *agrenting.KeyRecord){
		"current and previous swapped": func(r *agrenting.KeyRecord) {
			r.Current.Credential, r.Previous.Credential = r.Previous.Credential, r.Current.Credential
		},
		"keys swapped with their ids": func(r *agrenting.KeyRecord) { r.Current, r.Previous = r.Previous, r.Current },
		"pending taken for current":   func(r *agrenting.KeyRecord) { r.Current, r.Pending = r.Pending, agrenting.StoredKey{} },
		"lifeline taken for current": func(r *agrenting.KeyRecord) {
			r.Current.Credential = agrenting.APIKey(r.Intent.Lifeline.Reveal())
		},
		"another generation": func(r *agrenting.KeyRecord) { r.Generation++ },
		"another key id":     func(r *agrenting.KeyRecord) { r.Current.ID = "key-9" },
		"another agent":      func(r *agrenting.KeyRecord) { r.Previous.AgentID = "agent-9" },
		"another intent":     func(r *agrenting.KeyRecord) { r.Intent.Key = "intent-9" },
		"another kind": func(r *agrenting.KeyRecord) {
			r.Current.Credential = agrenting.UserToken(r.Current.Credential.Reveal())
		},
		"of another record": func(r *agrenting.KeyRecord) { r.Generation, r.Intent = other.Generation, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inner, rec, rev := sealedInside(t, key)
			change(&rec)
			save(t, inner, rec, rev)
			_, _, err := sealed(t, inner, key).Load(t.Context())
			require.ErrorIs(t, err, agrenting.ErrSealed)
			require.ErrorContains(t, err, "altered")
		})
	}
}

func TestDamageOfASealedSecretIsSeen(t *testing.T) {
	t.Parallel()
	key := agrenting.NewSealingKey()
	inner, rec, rev := sealedInside(t, key)
	text := rec.Current.Credential.Reveal()
	for i := range text {
		b := []byte(text)
		b[i]++
		if b[i] > 'z' {
			b[i] = 'A'
		}
		rec.Current.Credential = agrenting.APIKey(string(b))
		rev = save(t, inner, rec, rev)
		_, _, err := sealed(t, inner, key).Load(t.Context())
		require.Error(t, err, "byte %d", i)
		if i >= len("sealed1.") {
			require.ErrorIs(t, err, agrenting.ErrSealed, "byte %d", i)
		}
		assert.NotContains(t, err.Error(), string(b))
	}
	for _, cut := range []int{len("sealed1."), len("sealed1.") + 5, 30, len(text) - 1} {
		rec.Current.Credential = agrenting.APIKey(text[:cut])
		rev = save(t, inner, rec, rev)
		_, _, err := sealed(t, inner, key).Load(t.Context())
		require.ErrorIs(t, err, agrenting.ErrSealed)
	}
}

func TestPlainRecordIsNotTakenForASealedOne(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]func(r *agrenting.KeyRecord){
		"current":  func(r *agrenting.KeyRecord) { r.Current.Credential = agrenting.APIKey(currentSecret) },
		"pending":  func(r *agrenting.KeyRecord) { r.Pending.Credential = agrenting.APIKey(currentSecret) },
		"previous": func(r *agrenting.KeyRecord) { r.Previous.Credential = agrenting.APIKey(currentSecret) },
		"lifeline": func(r *agrenting.KeyRecord) { r.Intent.Lifeline = agrenting.SessionToken(currentSecret, time.Time{}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := agrenting.NewSealingKey()
			inner, rec, rev := sealedInside(t, key)
			plain(&rec)
			save(t, inner, rec, rev)
			s := sealed(t, inner, key)
			_, _, err := s.Load(t.Context())
			require.ErrorIs(t, err, agrenting.ErrNotSealed)
			require.NotErrorIs(t, err, agrenting.ErrNoCredential)
			require.ErrorContains(t, err, name)
			require.ErrorContains(t, err, "Reseal")
			assert.NotContains(t, err.Error(), currentSecret)

			watcher, ok := s.(agrenting.KeyWatcher)
			require.True(t, ok)
			for rec, err := range watcher.Watch(t.Context()) {
				require.ErrorIs(t, err, agrenting.ErrNotSealed)
				assert.True(t, rec.Current.IsZero())
				break
			}
		})
	}
}

func TestSealingKeyIsReplaced(t *testing.T) {
	t.Parallel()
	old, fresh := agrenting.NewSealingKey(), agrenting.NewSealingKey()
	inner, _, _ := sealedInside(t, old)
	both := sealed(t, inner, fresh, old)
	rec, _ := load(t, both)
	assert.Equal(t, currentSecret, rec.Current.Credential.Reveal())
	require.NoError(t, agrenting.Reseal(t.Context(), both, both))
	rec, _ = load(t, sealed(t, inner, fresh))
	assert.Equal(t, currentSecret, rec.Current.Credential.Reveal())
	assert.Equal(t, lifelineSecret, rec.Intent.Lifeline.Reveal())
	_, _, err := sealed(t, inner, old).Load(t.Context())
	require.ErrorIs(t, err, agrenting.ErrSealed)
}

func TestStoreChangesOverToSealedAndBack(t *testing.T) {
	t.Parallel()
	path := storePath(t)
	plain := fileStore(t, path)
	s := sealed(t, plain, agrenting.NewSealingKey())
	save(t, plain, rotating(), "")
	ctx := t.Context()

	require.NoError(t, agrenting.Reseal(ctx, plain, s))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.NotContains(t, string(b), currentSecret)
	rec, _ := load(t, s)
	assert.Equal(t, previousSecret, rec.Previous.Credential.Reveal())
	require.ErrorIs(t, agrenting.Reseal(ctx, plain, s), agrenting.ErrInvalidCredential, "twice would lose it")

	require.NoError(t, agrenting.Reseal(ctx, s, plain))
	rec, _ = load(t, plain)
	assert.Equal(t, currentSecret, rec.Current.Credential.Reveal())
	require.ErrorIs(t, agrenting.Reseal(ctx, s, plain), agrenting.ErrNotSealed)
}

func TestResealCopiesToAnEmptyStoreOnly(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	from := emptyStore()
	require.ErrorIs(t, agrenting.Reseal(ctx, from, emptyStore()), agrenting.ErrNoCredential)
	save(t, from, rotating(), "")
	key := agrenting.NewSealingKey()
	inner := emptyStore()
	to := sealed(t, inner, key)
	require.NoError(t, agrenting.Reseal(ctx, from, to))
	rec, _ := load(t, to)
	assert.Equal(t, currentSecret, rec.Current.Credential.Reveal())
	_, rev := load(t, from)
	assert.NotEmpty(t, rev, "it keeps its record")

	taken := emptyStore()
	other := keyRecord(4, "sk_other_0123456789")
	save(t, taken, other, "") // at the same revision and generation, by chance
	for _, s := range []agrenting.KeyStore{taken, sealed(t, taken, key), to} {
		require.ErrorIs(t, agrenting.Reseal(ctx, from, s), agrenting.ErrConflictingWrite)
	}
	rec, _ = load(t, taken)
	assert.Equal(t, "sk_other_0123456789", rec.Current.Credential.Reveal())
}

func TestResealWaitsForRotations(t *testing.T) {
	t.Parallel()
	plain := emptyStore()
	rec := rotating()
	rec.Intent.Lease = time.Now().Add(time.Hour)
	save(t, plain, rec, "")
	err := agrenting.Reseal(t.Context(), plain, sealed(t, plain, agrenting.NewSealingKey()))
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
	require.ErrorContains(t, err, "being rotated")
	rec, _ = load(t, plain)
	assert.Equal(t, currentSecret, rec.Current.Credential.Reveal())
}

func TestSealedSecretsFitIntoStores(t *testing.T) {
	t.Parallel()
	const longest = 2992
	s := sealed(t, fileStore(t, storePath(t)), agrenting.NewSealingKey())
	rev := save(t, s, keyRecord(1, strings.Repeat("x", longest)), "")
	rec, _ := load(t, s)
	assert.Len(t, rec.Current.Credential.Reveal(), longest)
	_, err := s.Save(t.Context(), keyRecord(2, strings.Repeat("x", longest+1)), rev)
	require.ErrorIs(t, err, agrenting.ErrInvalidCredential)
	require.ErrorContains(t, err, "2992")
	rec, _ = load(t, s)
	assert.EqualValues(t, 1, rec.Generation)
}

func TestSealedRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	key := agrenting.NewSealingKey()
	once := sealed(t, emptyStore(), key)
	for name, try := range map[string]func() (agrenting.KeyStore, error){
		"no store":      func() (agrenting.KeyStore, error) { return agrenting.Sealed(nil, key) },
		"no key":        func() (agrenting.KeyStore, error) { return agrenting.Sealed(emptyStore(), agrenting.SealingKey{}) },
		"no older key":  func() (agrenting.KeyStore, error) { return agrenting.Sealed(emptyStore(), key, agrenting.SealingKey{}) },
		"sealed before": func() (agrenting.KeyStore, error) { return agrenting.Sealed(once, key) },
	} {
		_, err := try()
		require.ErrorIs(t, err, agrenting.ErrInvalidOption, name)
	}
}

func TestSealedStorePassesErrorsOn(t *testing.T) {
	t.Parallel()
	s := sealed(t, agrenting.ReadOnlyStore(agrenting.Static(agrenting.APIKey(currentSecret))), agrenting.NewSealingKey())
	_, _, err := s.Load(t.Context())
	require.ErrorIs(t, err, agrenting.ErrNotSealed)
	_, err = s.Save(t.Context(), rotating(), "")
	require.ErrorIs(t, err, agrenting.ErrReadOnlyStore)
}

func TestKeyIsRotatedInASealedFile(t *testing.T) {
	t.Parallel()
	srv := agrentingtest.NewServer()
	defer srv.Close()
	first := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "a"}).ID).Secret
	path := filepath.Join(t.TempDir(), "agrenting", "key.json")
	key := agrenting.NewSealingKey()
	open := func() *agrenting.Client {
		c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL),
			agrenting.WithCredential(agrenting.APIKey(first)), agrenting.WithKeyStore(sealed(t, fileStore(t, path), key)))
		require.NoError(t, err)
		return c
	}
	c := open()
	_, err := c.Rotate(t.Context())
	require.NoError(t, err)
	now, err := c.Credential(t.Context())
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NotEqual(t, first, now.Reveal())

	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.NotContains(t, string(b), first)
	assert.NotContains(t, string(b), now.Reveal())
	c = open()
	again, err := c.Credential(t.Context())
	require.NoError(t, err)
	assert.True(t, again.Equal(now), "the store's key comes before the seed")
	require.NoError(t, c.Close())
}
