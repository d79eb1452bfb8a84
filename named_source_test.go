package agrenting_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// vaultSource is a source of a program that prints as its URL.
type vaultSource struct {
	*url.URL

	err error
}

func (v vaultSource) Credential(context.Context) (agrenting.Credential, error) {
	return agrenting.APIKey(sdktest.TestKey), v.err
}

// vaultStore is a store of a program that prints as its URL.
type vaultStore struct {
	*url.URL
	agrenting.Store
}

func TestURLPassword_inSourceOrStoreName_isNotShown(t *testing.T) {
	t.Parallel()
	u := &url.URL{Scheme: "https", User: url.UserPassword("u", "hunter2"), Host: "vault.test", Path: "/v1/key", RawQuery: "token=hunter2"}
	down := vaultSource{u, fmt.Errorf("vault (%s): down", u)}
	store := vaultStore{u, agrenting.MemoryStore()}
	namespace, err := agrenting.Namespace(store, "a")
	require.NoError(t, err)
	once := agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1, RenewalWait: -1})
	for name, tc := range map[string]struct {
		opts []agrenting.Option
		want string
	}{
		"rejected":  {[]agrenting.Option{agrenting.WithCredentialSource(vaultSource{URL: u})}, "WithCredentialSource (agrenting_test.vaultSource)"},
		"down":      {[]agrenting.Option{agrenting.WithCredentialSource(down)}, "vault (https://[redacted]@vault.test/v1/key): down. The next try"},
		"wrapped":   {[]agrenting.Option{agrenting.WithCredentialSource(agrenting.Chain(down))}, "Chain(source 1 (agrenting_test.vaultSource))"},
		"store":     {[]agrenting.Option{agrenting.WithStore(store), agrenting.WithCredentialSource(vaultSource{URL: u})}, "WithStore (agrenting_test.vaultStore)"},
		"namespace": {[]agrenting.Option{agrenting.WithStore(namespace), agrenting.WithCredentialSource(vaultSource{URL: u})}, "Namespace(agrenting_test.vaultStore, a.)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := append([]agrenting.Option{
				agrenting.WithoutEnvironment(), agrenting.WithTransport(sdktest.Answering(http.StatusUnauthorized, sdktest.RevokedBody)), once,
			}, tc.opts...)
			c, err := agrenting.New(opts...)
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, c.Close()) })
			_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.ErrorContains(t, err, tc.want)
			assert.NotContains(t, err.Error(), "hunter2")
			assert.NotContains(t, fmt.Sprintf("%+v", c.Status()), "hunter2")
			assert.NotContains(t, c.Status().LogValue().String(), "hunter2")
		})
	}
}
