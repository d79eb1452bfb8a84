package record

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
)

func TestKeyRecordRoundTrip(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	k := Key{
		Agent: "a1", Lineage: "f00d", Series: "5e41e5", Generation: 7,
		Current:  StoredKey{Credential: apiKey("sk_current_0123456789"), ID: "k7", Created: at, Expires: at.Add(time.Hour)},
		Pending:  StoredKey{Credential: apiKey("sk_pending_0123456789"), ID: "k8", Created: at},
		Previous: StoredKey{Credential: apiKey("sk_previous_0123456789"), ID: "k6"},
		Intent: &Intent{
			Key: "i", Strategy: "overlap", Stage: "verify", From: "sha256:1", Generation: 8, Started: at, Attempts: 2,
			Grace: time.Second, GraceEnd: at.Add(time.Minute), Unknown: true, Known: []string{"k6", "k7"},
			Lifeline: secret.NewCredential(secret.Material{Kind: secret.KindSession, Secret: "session-0123456789", Expires: at}),
		},
		Ancestors: []string{"sha256:a", "sha256:b"},
	}
	s := slotOf(newMemory(), nil, Identity{Origin: "https://a.test", Environment: "sandbox"})
	saved := mustSave(t, s, Entry[Key]{Body: k, Lease: Lease{Holder: "h", Duration: 20 * time.Second}})
	got := mustLoad(t, s)
	assert.Equal(t, saved.Revision, got.Revision)
	assert.Equal(t, Lease{Holder: "h", Duration: 20 * time.Second, Counter: 1}, got.Lease)
	want, err := encodeKey(k)
	require.NoError(t, err)
	have, err := encodeKey(got.Body)
	require.NoError(t, err)
	assert.Equal(t, want, have)
	assert.Equal(t, "a1", got.Body.Agent)
	assert.True(t, got.Body.Intent.Lifeline.Expires().Equal(at))
}

func TestUnusableRecordsAreRefused(t *testing.T) {
	t.Parallel()
	const hidden = "sk_hidden_0123456789"
	body := func(inner string) string { return `{"version":2,"kind":"key","write":"w","body":{` + inner + `}}` }
	current := `"current":{"kind":"api key","secret":"x"}`
	for name, tc := range map[string]struct{ data, want string }{
		"empty":                  {"", "it is empty"},
		"not JSON":               {"{" + hidden, "not JSON"},
		"an older build's":       {`{"version":1,"current":{"kind":"api key","secret":"` + hidden + `"}}`, "older build"},
		"a newer version":        {`{"version":3,"kind":"key","body":{}}`, "version 3"},
		"no version":             {`{"current":{"kind":"api key","secret":"` + hidden + `"}}`, "version 0"},
		"another kind":           {`{"version":2,"kind":"session","body":{}}`, "not a key record"},
		"no body":                {`{"version":2,"kind":"key"}`, "no current key"},
		"null body":              {`{"version":2,"kind":"key","body":null}`, "malformed"},
		"malformed body":         {`{"version":2,"kind":"key","body":{"generation":"` + hidden + `"}}`, "malformed"},
		"malformed newer body":   {`{"version":3,"kind":"key","body":7}`, "version 3"},
		"no current key":         {body(`"generation":1`), "no current key"},
		"unknown kind of secret": {body(`"current":{"kind":"passkey","secret":"` + hidden + `"}`), "current key has an unknown kind"},
		"broken secret":          {body(`"current":{"kind":"api key","secret":"` + hidden + ` x"}`), "current key has white space"},
		"broken pending key":     {body(current + `,"pending":{"kind":"api key","secret":"` + hidden + `\n"}`), "pending key"},
		"broken lifeline":        {body(current + `,"intent":{"lifeline":{"kind":"session","secret":"` + hidden + `\n"}}`), "lifeline"},
		"malformed lease":        {`{"version":2,"kind":"key","lease":{"holder":"","duration":"` + hidden + `"},"body":{}}`, "lease"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMemory()
			m.put(KeyName, Raw{Data: []byte(tc.data), Revision: "1"})
			_, err := slotOf(m, nil, Identity{}).Load(t.Context())
			require.ErrorIs(t, err, ErrInvalid)
			require.NotErrorIs(t, err, ErrNoRecord)
			require.ErrorContains(t, err, tc.want)
			assert.NotContains(t, err.Error(), hidden)
			assert.Equal(t, tc.data, string(m.raw(KeyName).Data), "it is left intact")
		})
	}
}

func TestRecordOfOtherPlaceIsRefused(t *testing.T) {
	t.Parallel()
	mine := Identity{Origin: "https://a.test", Environment: "production", Agent: "a1"}
	for name, tc := range map[string]struct {
		of    Identity
		agent string
		want  error
	}{
		"the same":            {mine, "a1", nil},
		"unknown environment": {Identity{Origin: mine.Origin}, "a1", nil},
		"unknown agent":       {mine, "", nil},
		"another origin":      {Identity{Origin: "https://b.test"}, "a1", mismatch{"key", "origin", "https://b.test", "https://a.test"}},
		"another environment": {Identity{Origin: mine.Origin, Environment: "sandbox"}, "a1", mismatch{"key", "environment", "sandbox", "production"}},
		"another agent":       {mine, "a2", mismatch{"key", "agent", "a2", "a1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMemory()
			k := keyOf(1)
			k.Agent = tc.agent
			of := tc.of
			of.Agent = ""
			mustSave(t, slotOf(m, nil, of), Entry[Key]{Body: k})
			_, err := slotOf(m, nil, mine).Load(t.Context())
			assert.Equal(t, tc.want, err)
		})
	}
}

func TestEveryWriteDiffers(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := slotOf(m, nil, Identity{})
	e := Entry[Key]{Body: keyOf(1)}
	seen := map[string]bool{}
	for range 3 {
		e = mustSave(t, s, e)
		seen[string(m.raw(KeyName).Data)] = true
	}
	assert.Len(t, seen, 3)
}

func TestRecordBeyondTheLimitIsNotSaved(t *testing.T) {
	t.Parallel()
	m := newMemory()
	k := keyOf(1)
	k.Ancestors = []string{strings.Repeat("x", MaxSize)}
	_, err := slotOf(m, nil, Identity{}).Save(t.Context(), Entry[Key]{Body: k})
	require.ErrorIs(t, err, ErrInvalid)
	assert.Empty(t, m.inner.records)
}

func TestSessionIsSealedWithItsKey(t *testing.T) {
	t.Parallel()
	m := newMemory()
	first, second := apiKey("sk_first_0123456789"), apiKey("sk_second_0123456789")
	cfg := Config{Store: m, Of: Identity{Origin: "https://a.test"}}
	s := Sessions(cfg, LineageOf(first), first)
	_, err := s.Save(t.Context(), Entry[Session]{Body: Session{Agent: "a1", Token: "token-0123456789"}})
	require.NoError(t, err)
	data := string(m.raw(s.Name()).Data)
	assert.NotContains(t, data, "token-0123456789")

	got, err := Sessions(cfg, LineageOf(first), first).Load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, Session{Agent: "a1", Token: "token-0123456789", Key: first.Fingerprint()}, got.Body)

	other := Sessions(cfg, LineageOf(first), second)
	require.Equal(t, s.Name(), other.Name(), "one lineage has one record")
	got, err = other.Load(t.Context())
	require.NoError(t, err, "a session of another key is none, and is replaced")
	assert.Empty(t, got.Body.Token)
}

func TestSessionNames(t *testing.T) {
	t.Parallel()
	a := SessionName("https://a.test", "l")
	assert.Regexp(t, `^session\.[0-9a-f]{16}$`, a)
	assert.Empty(t, NameProblem(a))
	assert.NotEqual(t, a, SessionName("https://b.test", "l"))
	assert.NotEqual(t, a, SessionName("https://a.test", "m"))
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"key", "a", "0", "a-b", "session.0123456789abcdef", "a.b.c", strings.Repeat("a", 63)} {
		assert.Empty(t, NameProblem(name), name)
	}
	for _, name := range []string{"", ".", "a.", ".a", "a..b", "A", "a_b", "-a", "a-", "a.-b", "a/b", "a b", "ä", strings.Repeat("a", 64)} {
		assert.NotEmpty(t, NameProblem(name), name)
	}
}

func FuzzRecord(f *testing.F) {
	m := newMemory()
	s := slotOf(m, nil, Identity{Origin: "https://a.test"})
	_, err := s.Save(f.Context(), Entry[Key]{Body: keyOf(1), Lease: Lease{Holder: "h", Duration: time.Second}})
	require.NoError(f, err)
	f.Add(m.raw(KeyName).Data)
	f.Add([]byte(`{"version":2,"kind":"key","body":{"current":{"kind":"api key","secret":"x"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, _, err := keyCodec.unmarshal(data)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		require.False(t, e.Body.Current.IsZero())
		b, err := keyCodec.marshal(e, Identity{})
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		_, _, err = keyCodec.unmarshal(b)
		require.NoError(t, err, "what is encoded is decoded")
	})
}
