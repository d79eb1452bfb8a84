package agrenting_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/keyfile"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestSourcesReportsState(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	require.NoError(t, os.WriteFile(file, []byte(sdktest.TestKey), 0o600))
	const (
		keyFile, sandboxKey, apiKey, session = "AGRENTING_KEY_FILE", "AGRENTING_SANDBOX_API_KEY", "AGRENTING_API_KEY", "AGRENTING_SESSION_TOKEN"
		notSet                               = " not set"
	)
	cases := map[string]struct {
		vars map[string]string
		opts []agrenting.Option
		want []string
	}{
		"nothing": {nil, nil, []string{keyFile + notSet, apiKey + notSet, session + notSet}},
		"the first serves": {
			map[string]string{apiKey: sdktest.TestKey, session: "st_1"},
			nil,
			[]string{keyFile + notSet, apiKey + " used", session + " set, but shadowed by " + apiKey},
		},
		"what cannot be parsed shadows all the same": {
			map[string]string{apiKey: `"` + sdktest.TestKey + `"`, session: "st_1"},
			nil,
			[]string{keyFile + notSet, apiKey + " set, but cannot be used", session + " set, but shadowed by " + apiKey},
		},
		"a file that is there": {
			map[string]string{keyFile: file, apiKey: sdktest.TestKey},
			nil,
			[]string{keyFile + " used", apiKey + " set, but shadowed by " + keyFile, session + notSet},
		},
		"a file that is not": {
			map[string]string{keyFile: file + "x"},
			nil,
			[]string{keyFile + " file does not exist", apiKey + notSet, session + notSet},
		},
		"a sandbox key in production": {
			map[string]string{sandboxKey: "sk_sandbox_1", apiKey: sdktest.TestKey},
			nil,
			[]string{keyFile + notSet, sandboxKey + " set, but read in the sandbox only, see AGRENTING_ENV", apiKey + " used", session + notSet},
		},
		"the sandbox": {
			map[string]string{"AGRENTING_ENV": "sandbox", sandboxKey: "sk_sandbox_1"},
			nil,
			[]string{keyFile + notSet, sandboxKey + " used", apiKey + notSet, session + notSet},
		},
		"a key of the other environment": {
			map[string]string{apiKey: sdktest.TestKey},
			[]agrenting.Option{agrenting.WithEnvironment(agrenting.Sandbox)},
			[]string{keyFile + notSet, sandboxKey + notSet, apiKey + " set, but cannot be used", session + notSet},
		},
		"an unmarked token": {
			map[string]string{"AGRENTING_ENV": "sandbox", apiKey: "ap_1"},
			nil,
			[]string{keyFile + notSet, sandboxKey + notSet, apiKey + " set, but cannot be used", session + notSet},
		},
		"one that is answered for": {
			map[string]string{"AGRENTING_ENV": "sandbox", apiKey: "ap_1", "AGRENTING_UNMARKED_SANDBOX_TOKENS": "allow"},
			nil,
			[]string{keyFile + notSet, sandboxKey + notSet, apiKey + " used", session + notSet},
		},
		"an option": {
			map[string]string{apiKey: sdktest.TestKey},
			[]agrenting.Option{agrenting.WithCredential(agrenting.APIKey("k"))},
			[]string{"WithCredential used", keyFile + notSet, apiKey + " set, but shadowed by WithCredential", session + notSet},
		},
		"an option of the other environment": {
			map[string]string{"AGRENTING_ENV": "sandbox"},
			[]agrenting.Option{agrenting.WithCredential(agrenting.APIKey("k"))},
			[]string{"WithCredential set, but cannot be used", keyFile + notSet, sandboxKey + notSet, apiKey + notSet, session + notSet},
		},
		"a source": {
			nil,
			[]agrenting.Option{agrenting.WithCredentialSource(sdktest.NewSource("k"))},
			[]string{"WithCredentialSource used", keyFile + notSet, apiKey + notSet, session + notSet},
		},
		"anonymous": {
			map[string]string{apiKey: sdktest.TestKey},
			[]agrenting.Option{agrenting.WithStore(agrenting.MemoryStore()), agrenting.WithAnonymous()},
			[]string{
				"WithAnonymous used", "WithStore set, but shadowed by WithAnonymous", keyFile + notSet,
				apiKey + " set, but shadowed by WithAnonymous", session + notSet,
			},
		},
		"a store": {
			map[string]string{apiKey: sdktest.TestKey},
			[]agrenting.Option{agrenting.WithStore(agrenting.MemoryStore())},
			[]string{"WithStore used", keyFile + notSet, apiKey + " fills the store while that is empty", session + notSet},
		},
		"what New refuses is passed over": {
			map[string]string{"AGRENTING_CREDENTIAL_TYPE": "nonsense", "AGRENTING_ENV": "moon", apiKey: sdktest.TestKey},
			[]agrenting.Option{nil, agrenting.WithBaseURL(""), agrenting.WithCredential(agrenting.APIKey(""))},
			[]string{keyFile + notSet, apiKey + " used", session + notSet},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, s := range agrenting.Sources(append([]agrenting.Option{sdktest.LookupIn(tc.vars)}, tc.opts...)...) {
				got = append(got, s.Name+" "+s.State)
				assert.Equal(t, s.State == "used", s.Used())
			}
			assert.Equal(t, tc.want, got)
			sdktest.AssertClean(t, strings.Join(got, "\n"), sdktest.TestKey)
		})
	}
}

// Whatever New takes is what Sources says is used.
func TestSourcesAgreesWithNew(t *testing.T) {
	t.Parallel()
	vars := []string{"AGRENTING_KEY_FILE", "AGRENTING_SANDBOX_API_KEY", "AGRENTING_API_KEY", "AGRENTING_SESSION_TOKEN"}
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte("sk_sandbox_f"), 0o600))
	for bits := range 1 << len(vars) {
		for _, env := range []string{"", "production", "sandbox"} {
			set := map[string]string{"AGRENTING_ENV": env}
			for i, name := range vars {
				if bits>>i&1 == 1 {
					set[name] = "sk_sandbox_" + name
				}
			}
			if set["AGRENTING_KEY_FILE"] != "" {
				set["AGRENTING_KEY_FILE"] = file
			}
			used := ""
			for _, s := range agrenting.Sources(sdktest.LookupIn(set)) {
				if s.Used() {
					require.Empty(t, used, "at most one")
					used = s.Name
				}
			}
			c, err := agrenting.New(sdktest.LookupIn(set))
			if err != nil {
				assert.Empty(t, used, "%v: %v", set, err)
				continue
			}
			assert.Equal(t, c.Status().Source, used, "%v", set)
			require.NoError(t, c.Close())
		}
	}
}

func TestRefresherGetsRejectedCredential(t *testing.T) {
	t.Parallel()
	src := &sdktest.Refreshing{Source: sdktest.Source{Cred: agrenting.APIKey("k1")}, Next: agrenting.APIKey("k2")}
	p := sdktest.NewPlatform("k2")
	c := sdktest.ClientOver(t, p, src)
	_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	require.Len(t, src.Rejected, 1)
	assert.Equal(t, "k1", src.Rejected[0].Reveal())
	assert.Equal(t, 1, src.Count(), "Credential is not asked for what was rejected")
}

func TestAKeyFileIsFollowedWithoutA401(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "key")
		require.NoError(t, os.WriteFile(path, []byte("key-number-1"), 0o600))
		var base sdktest.Recorder
		c := sdktest.ClientOver(t, &base, agrenting.FileSource(path))
		used := func() string {
			_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.NoError(t, err)
			synctest.Wait()
			got := base.Requests()
			return sdktest.SecretOf(got[len(got)-1].Header)
		}
		assert.Equal(t, "key-number-1", used())
		require.NoError(t, os.WriteFile(path, []byte("key-number-2"), 0o600))
		sdktest.Advance(keyfile.Recheck - time.Second)
		assert.Equal(t, "key-number-1", used(), "requests do not read the file")
		sdktest.Advance(2 * time.Second)
		used() // has it looked at
		assert.Equal(t, "key-number-2", used())
	})
}
