package agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/keyfile"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func failingWith(err error) agrenting.CredentialSource {
	return agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
		return agrenting.Credential{}, err
	})
}

func TestChain_usesTheFirstCredential(t *testing.T) {
	t.Parallel()
	k1, k2 := agrenting.Static(agrenting.APIKey("k1")), agrenting.Static(agrenting.APIKey("k2"))
	none, down := failingWith(fmt.Errorf("vault: %w", agrenting.ErrNoCredential)), errors.New("vault is down")
	empty := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) { return agrenting.Credential{}, nil })
	panics := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) { panic("sk_live_Zq7Wm3Xp9Rt5Kv2Ln8Yd4") })
	dir := t.TempDir()
	missing, folder := agrenting.FileSource(filepath.Join(dir, "missing")), agrenting.FileSource(dir)
	write(t, filepath.Join(dir, "written"), "")
	written := agrenting.FileSource(filepath.Join(dir, "written"))
	exe, err := os.Executable()
	require.NoError(t, err)
	write(t, filepath.Join(dir, "errors"), `{"errors":["permission denied"]}`)
	rejects := agrenting.CommandSource(exe, asCommand, filepath.Join(dir, "errors"))
	quiet, absent := agrenting.CommandSource(exe, asCommand, filepath.Join(dir, "written")), agrenting.CommandSource("agrenting-no-such-program")
	for name, tc := range map[string]struct {
		sources []agrenting.CredentialSource
		want    string
		is      error
		says    string
	}{
		"first":             {[]agrenting.CredentialSource{k1, k2}, "k1", nil, ""},
		"second":            {[]agrenting.CredentialSource{none, k2}, "k2", nil, ""},
		"missing file":      {[]agrenting.CredentialSource{missing, k2}, "k2", nil, ""},
		"missing command":   {[]agrenting.CredentialSource{absent, k2}, "k2", nil, ""},
		"no output":         {[]agrenting.CredentialSource{quiet, k2}, "k2", nil, ""},
		"errors as output":  {[]agrenting.CredentialSource{rejects, k2}, "", agrenting.ErrInvalidCredential, "source 1 of the chain"},
		"empty file":        {[]agrenting.CredentialSource{written, k2}, "", agrenting.ErrInvalidCredential, "is empty"},
		"folder as file":    {[]agrenting.CredentialSource{agrenting.RefreshEvery(folder, time.Minute), k2}, "", agrenting.ErrInvalidCredential, "is a directory"},
		"zero credential":   {[]agrenting.CredentialSource{empty, k2}, "k2", nil, ""},
		"nil source":        {[]agrenting.CredentialSource{nil, k2}, "k2", nil, ""},
		"chain in a chain":  {[]agrenting.CredentialSource{agrenting.Chain(none, none), agrenting.Chain(none, k2)}, "k2", nil, ""},
		"other error":       {[]agrenting.CredentialSource{none, failingWith(down), k2}, "", down, "source 2 of the chain: vault is down"},
		"panic":             {[]agrenting.CredentialSource{panics, k2}, "", nil, "source 1 of the chain: agrenting: the credential source panicked"},
		"invalid":           {[]agrenting.CredentialSource{failingWith(agrenting.ErrInvalidCredential), k2}, "", agrenting.ErrInvalidCredential, "source 1"},
		"no source":         {nil, "", agrenting.ErrNoCredential, "the chain has no sources"},
		"none":              {[]agrenting.CredentialSource{none, missing, nil}, "", fs.ErrNotExist, "agrenting: no credential: source 1: vault: agrenting: no credential; source 2: key file "},
		"none of all kinds": {[]agrenting.CredentialSource{none, missing, nil}, "", agrenting.ErrNoCredential, "source 3 is nil"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cred, err := agrenting.Chain(tc.sources...).Credential(t.Context())
			if tc.says == "" {
				require.NoError(t, err)
				assert.Equal(t, tc.want, cred.Reveal())
				return
			}
			require.ErrorContains(t, err, tc.says)
			if tc.is != nil {
				require.ErrorIs(t, err, tc.is)
			}
			assert.NotContains(t, err.Error(), "Zq7Wm3Xp9Rt5Kv2Ln8Yd4")
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestChain_rejection_reachesItsSourceOnly(t *testing.T) {
	t.Parallel()
	other := &sdktest.Refreshing{Source: sdktest.Source{Err: agrenting.ErrNoCredential}}
	own := &sdktest.Refreshing{Source: sdktest.Source{Cred: agrenting.APIKey("k1")}, Next: agrenting.APIKey("k2")}
	later := agrenting.Static(agrenting.APIKey("k3"))
	chain, ok := agrenting.Chain(other, own, later).(agrenting.Refresher)
	require.True(t, ok)
	c, err := chain.Credential(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "k1", c.Reveal())

	c, err = chain.Refresh(t.Context(), agrenting.APIKey("k1"))
	require.NoError(t, err)
	assert.Equal(t, "k2", c.Reveal())
	assert.Empty(t, other.Rejected, "the credential was not its own")
	require.Len(t, own.Rejected, 1)
	assert.Equal(t, "k1", own.Rejected[0].Reveal())

	own.NextErr = agrenting.ErrNoCredential
	c, err = chain.Refresh(t.Context(), agrenting.APIKey("k2"))
	require.NoError(t, err)
	assert.Equal(t, "k3", c.Reveal(), "a source that has lost its credential is passed over")

	other.Err, other.Cred = nil, agrenting.APIKey("k0")
	c, err = chain.Refresh(t.Context(), agrenting.APIKey("k3"))
	require.NoError(t, err)
	assert.Equal(t, "k0", c.Reveal(), "each request starts at the first source")
}

func TestChain_status_namesTheSourceInUse(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key")
	src := agrenting.Chain(agrenting.FileSource(file), sdktest.NewSource("k1"))
	assert.Equal(t, fmt.Sprintf("agrenting.Chain(FileSource(%q), source 2 (*sdktest.Source))", file), fmt.Sprint(src))
	c := sdktest.ClientOver(t, new(sdktest.Recorder), src)
	assert.Equal(t, "WithCredentialSource", c.Status().Source)
	_, err := c.Credential(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "WithCredentialSource: source 2 (*sdktest.Source)", c.Status().Source)
}

// A file that appears is used without a rejection, and one that vanishes leaves the next source.
func TestChain_followsItsFiles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
		vault := sdktest.NewSource("vault")
		write(t, second, "second")
		c := sdktest.ClientOver(t, new(sdktest.Recorder), agrenting.Chain(agrenting.FileSource(first), agrenting.FileSource(second), vault))
		inUse := func() string {
			for range 2 { // the first request causes the recheck
				sdktest.Advance(keyfile.Recheck + time.Second)
				require.NoError(t, list(t, c))
				synctest.Wait()
			}
			cred, err := c.Credential(t.Context())
			require.NoError(t, err)
			return cred.Reveal()
		}
		assert.Equal(t, "second", inUse())
		write(t, first, "first")
		assert.Equal(t, "first", inUse())
		require.NoError(t, os.Remove(first))
		assert.Equal(t, "first", inUse(), "a file that is being replaced is waited for")
		assert.Zero(t, vault.Count())
	})
}

func TestChain_recheck_asksOnlyEarlierSources(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vault := &sdktest.Source{Err: agrenting.ErrNoCredential}
		file := filepath.Join(t.TempDir(), "key")
		write(t, file, "k1")
		c := sdktest.ClientOver(t, new(sdktest.Recorder), agrenting.Chain(vault, agrenting.FileSource(file)))
		for range 10 {
			require.NoError(t, list(t, c))
			sdktest.Advance(time.Minute)
		}
		assert.Equal(t, 1, vault.Count(), "the file alone would be read again, and the vault is before it")
	})
}

func TestChain_withSession_exchangesTheKeyInUse(t *testing.T) {
	t.Parallel()
	w := sdktest.NewSessionWorld(t, agrentingtest.WithoutRateLimits())
	c := w.Client(agrenting.WithCredentialSource(agrenting.Chain(
		failingWith(agrenting.ErrNoCredential), agrenting.Static(agrenting.APIKey(w.Key.Secret)))))
	require.NoError(t, w.Call(c))
	assert.Equal(t, "WithCredentialSource: Static(agrenting.Credential(api key, "+agrenting.APIKey(w.Key.Secret).Fingerprint()+"))", c.Status().Source)
}

func TestRefreshEvery_asksAgainAfterTheInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vault := sdktest.NewSource("k1")
		var base sdktest.Recorder
		c := sdktest.ClientOver(t, &base, agrenting.RefreshEvery(vault, 5*time.Minute))
		call := func() string {
			require.NoError(t, list(t, c))
			synctest.Wait()
			got := base.Requests()
			return sdktest.SecretOf(got[len(got)-1].Header)
		}
		assert.Equal(t, "k1", call())
		vault.Replace(agrenting.APIKey("k2"))
		sdktest.Advance(4 * time.Minute)
		assert.Equal(t, "k1", call())
		assert.Equal(t, 1, vault.Count())
		sdktest.Advance(2 * time.Minute)
		assert.Equal(t, "k1", call(), "the source is asked in the background")
		assert.Equal(t, "k2", call())
		assert.Equal(t, 2, vault.Count())
		sdktest.Advance(time.Hour)
		synctest.Wait()
		assert.Equal(t, 2, vault.Count(), "without requests it is not asked")
		vault.Err = errors.New("vault is down")
		for range 3 {
			assert.Equal(t, "k2", call(), "the credential in use continues to be used")
			sdktest.Advance(time.Minute)
		}
		assert.Greater(t, vault.Count(), 2)
	})
}

func TestRefreshEvery_passesEverythingOn(t *testing.T) {
	t.Parallel()
	own := &sdktest.Refreshing{Source: sdktest.Source{Cred: agrenting.APIKey("k1")}, Next: agrenting.APIKey("k2")}
	src, ok := agrenting.RefreshEvery(own, time.Minute).(agrenting.Refresher)
	require.True(t, ok)
	c, err := src.Refresh(t.Context(), agrenting.APIKey("k1"))
	require.NoError(t, err)
	assert.Equal(t, "k2", c.Reveal())
	assert.Len(t, own.Rejected, 1)
	assert.Equal(t, `agrenting.RefreshEvery(CommandSource("vault"), 1m0s)`, fmt.Sprint(agrenting.RefreshEvery(agrenting.CommandSource("vault"), time.Minute)))
	assert.Equal(t, "agrenting.RefreshEvery((*sdktest.Refreshing), 1m0s)", fmt.Sprint(src))
	_, err = agrenting.RefreshEvery(nil, time.Minute).Credential(t.Context())
	require.ErrorIs(t, err, agrenting.ErrNoCredential)
}

func TestRefreshEvery_chainOfCommands_isAskedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vault := &sdktest.Source{Err: agrenting.ErrNoCredential}
		next := sdktest.NewSource("k1")
		c := sdktest.ClientOver(t, new(sdktest.Recorder),
			agrenting.RefreshEvery(agrenting.Chain(vault, next), time.Minute))
		for range 4 {
			require.NoError(t, list(t, c))
			synctest.Wait()
			sdktest.Advance(time.Minute)
		}
		assert.Equal(t, 4, next.Count())
		assert.Equal(t, 4, vault.Count())
		assert.Equal(t, "WithCredentialSource: source 2 (*sdktest.Source)", c.Status().Source)
	})
}
