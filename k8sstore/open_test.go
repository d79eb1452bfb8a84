package k8sstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/agrenting/agrenting-go"
)

func TestOpen_checksOptions(t *testing.T) {
	t.Parallel()
	plain := WithPlaintext()
	at := func(host string) Config {
		return Config{Name: "writer", Namespace: "production", REST: &rest.Config{Host: host}}
	}
	const good = "https://10.0.0.1:6443"
	unverified := at(good)
	unverified.REST.Insecure = true
	custom := at(good)
	custom.REST.Transport = &http.Transport{}
	for name, tc := range map[string]struct {
		cfg  Config
		opts []Option
		want string // of the error, empty for none
	}{
		"https":            {at(good), []Option{plain}, ""},
		"host and port":    {at("10.0.0.1:6443"), []Option{plain}, "is not encrypted"},
		"http to loopback": {at("http://127.0.0.1:8001"), []Option{plain}, ""},
		"localhost":        {at("http://LOCALHOST:8001"), []Option{plain}, ""},
		"http":             {at("http://10.0.0.1:8080"), []Option{plain}, "is not encrypted"},
		"looks local":      {at("http://localhost.example.com"), []Option{plain}, "is not encrypted"},
		"http allowed":     {at("http://10.0.0.1:8080"), []Option{plain, WithInsecure()}, ""},
		"unverified":       {unverified, []Option{plain}, "Insecure is set"},
		"allowed":          {unverified, []Option{plain, WithInsecure()}, ""},
		"transport":        {custom, []Option{plain}, "Transport is set"},
		"user information": {at("https://root:hunter2@10.0.0.1"), []Option{plain}, "has user information"},
		"scheme":           {at("ftp://10.0.0.1"), []Option{plain}, "an unknown scheme"},
		"not a URL":        {at("https://hunter2:x%zz"), []Option{plain}, "is not a valid URL"},
		"no name":          {Config{Namespace: "production", REST: &rest.Config{Host: good}}, []Option{plain}, "invalid Config.Name"},
		"a dot":            {Config{Name: "a.b", Namespace: "production", REST: &rest.Config{Host: good}}, []Option{plain}, "invalid Config.Name"},
		"namespace":        {Config{Name: "a", Namespace: "b/c", REST: &rest.Config{Host: good}}, []Option{plain}, "invalid namespace"},
		"not in a pod":     {Config{Name: "writer"}, []Option{plain}, "set Config.REST"},
		"no sealing key":   {at(good), nil, "a sealing key is missing"},
		"empty key":        {at(good), []Option{WithSealingKey(agrenting.SealingKey{})}, "sealing key"},
		"both":             {at(good), []Option{plain, WithSealingKey(agrenting.NewSealingKey())}, "cannot be combined"},
		"timeout":          {at(good), []Option{plain, WithTimeout(0)}, "WithTimeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Open(tc.cfg, tc.opts...)
			if tc.want == "" {
				require.NoError(t, err)
				require.NoError(t, s.Close())
				assert.Equal(t, "k8sstore(production/writer)", s.String())
				return
			}
			require.ErrorIs(t, err, agrenting.ErrInvalidOption)
			require.ErrorContains(t, err, tc.want)
			assert.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestOpen_takesNamespaceOfPod(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "namespace")
	cfg := Config{Name: "writer", REST: &rest.Config{Host: "https://10.0.0.1"}}
	_, err := open(cfg, file, []Option{WithPlaintext()})
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
	require.ErrorContains(t, err, "set Config.Namespace")
	require.NoError(t, os.WriteFile(file, []byte("staging\n"), 0o600))
	s, err := open(cfg, file, []Option{WithPlaintext()})
	require.NoError(t, err)
	assert.Equal(t, "k8sstore(staging/writer)", s.String())
	cfg.Namespace = "production"
	s, err = open(cfg, file, []Option{WithPlaintext()})
	require.NoError(t, err)
	assert.Equal(t, "k8sstore(production/writer)", s.String())
}

func TestConfigAndStore_hideCredentials(t *testing.T) {
	t.Parallel()
	cfg := Config{Name: "writer", Namespace: "production", REST: &rest.Config{
		Host: "https://10.0.0.1", BearerToken: "hunter2", Password: "hunter2", Username: "root",
	}}
	cfg.REST.BearerToken = "hunter2"
	s, err := Open(Config{Name: "writer", Namespace: "production", REST: &rest.Config{Host: "https://10.0.0.1", BearerToken: "hunter2"}},
		WithPlaintext())
	require.NoError(t, err)
	for _, v := range []any{cfg, &cfg, []Config{cfg}, struct{ C Config }{cfg}, s, []*Store{s}, struct{ S *Store }{s}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			assert.NotContains(t, fmt.Sprintf(verb, v), "hunter2", verb)
		}
		b, err := json.Marshal(v)
		require.NoError(t, err)
		assert.NotContains(t, string(b), "hunter2")
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "value", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "value", v)
		assert.NotContains(t, log.String(), "hunter2")
	}
}
