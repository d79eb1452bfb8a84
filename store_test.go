package agrenting_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
)

func TestMemoryStoreConforms(t *testing.T) {
	t.Parallel()
	storetest.TestStore(t, func(*testing.T) agrenting.KeyStore { return agrenting.MemoryStore(agrenting.Credential{}) })
}

func TestMemoryStoreIsSeeded(t *testing.T) {
	t.Parallel()
	key := agrenting.APIKey("sk_store_0123456789")
	rec, rev, err := agrenting.MemoryStore(key).Load(t.Context())
	require.NoError(t, err)
	assert.NotEmpty(t, rev)
	assert.True(t, rec.Current.Credential.Equal(key))
	assert.EqualValues(t, 1, rec.Generation)
	assert.False(t, rec.Current.Created.IsZero())
}

func TestReadOnlyStoreGivesAndDoesNotTake(t *testing.T) {
	t.Parallel()
	key := agrenting.APIKey("sk_store_0123456789")
	s := agrenting.ReadOnlyStore(agrenting.Static(key))
	rec, rev, err := s.Load(t.Context())
	require.NoError(t, err)
	assert.True(t, rec.Current.Credential.Equal(key))
	for _, previous := range []agrenting.Revision{rev, ""} {
		_, err = s.Save(t.Context(), rec, previous)
		require.ErrorIs(t, err, agrenting.ErrReadOnlyStore)
		require.ErrorContains(t, err, "FileStore")
	}
}

func TestRecordsOfOtherKindsAreRefused(t *testing.T) {
	t.Parallel()
	const hidden = "sk_hidden_0123456789"
	for name, tc := range map[string]struct{ text, want string }{
		"not JSON":        {"{" + hidden, "damaged or sealed"},
		"empty":           {"", "damaged or sealed"},
		"another version": {`{"version":2,"current":{"kind":"api key","secret":"` + hidden + `"}}`, "version 2"},
		"no version":      {`{"current":{"kind":"api key","secret":"` + hidden + `"}}`, "version 0"},
		"no current key":  {`{"version":1,"previous":{"kind":"api key","secret":"` + hidden + `"}}`, "no current key"},
		"unknown kind":    {`{"version":1,"current":{"kind":"passkey","secret":"` + hidden + `"}}`, "current key"},
		"broken secret":   {`{"version":1,"current":{"kind":"api key","secret":"` + hidden + ` x"}}`, "current key"},
		"broken pending": {`{"version":1,"current":{"kind":"api key","secret":"x"},"pending":{"kind":"api key","secret":"` +
			hidden + `\n"}}`, "pending key"},
		"broken lifeline": {`{"version":1,"current":{"kind":"api key","secret":"x"},"intent":{"strategy":"in place","lifeline":` +
			`{"kind":"session","secret":"` + hidden + `\n"}}}`, "lifeline"},
		"unknown strategy": {`{"version":1,"current":{"kind":"api key","secret":"x"},"intent":{"strategy":"` + hidden + `"}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := agrenting.DecodeKeyRecord([]byte(tc.text))
			require.ErrorIs(t, err, agrenting.ErrInvalidCredential)
			require.ErrorContains(t, err, tc.want)
			assert.NotContains(t, err.Error(), hidden)
		})
	}
}

func TestWhatIsEncodedIsDecoded(t *testing.T) {
	t.Parallel()
	rec := agrenting.KeyRecord{Generation: 3, Current: agrenting.StoredKey{Credential: agrenting.APIKey("sk_store_0123456789")}}
	b, err := rec.Encode()
	require.NoError(t, err)
	assert.Contains(t, string(b), "sk_store_0123456789", "for stores, the secret is in clear")
	got, err := agrenting.DecodeKeyRecord(b)
	require.NoError(t, err)
	assert.EqualValues(t, 3, got.Generation)
	assert.True(t, rec.Current.Credential.Equal(got.Current.Credential))
}
