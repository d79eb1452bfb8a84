package etcdstore

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
)

func TestSecretsAreSentOnlyToEncryptedEndpoints(t *testing.T) {
	t.Parallel()
	secrets := map[string]Config{
		"password": {Username: "u", Password: "hunter2secret"},
		"TLS":      {TLS: &tls.Config{MinVersion: tls.VersionTLS12}},
		"both":     {Username: "u", Password: "hunter2secret", TLS: &tls.Config{MinVersion: tls.VersionTLS12}},
		"none":     {},
	}
	for name, tc := range map[string]struct {
		endpoints []string
		bare      bool   // accepted without a secret
		want      string // why it is refused with one; empty if it is accepted
	}{
		"https":                  {[]string{"https://etcd-0:2379", "https://etcd-1:2379"}, true, ""},
		"https in upper case":    {[]string{"HTTPS://etcd-0:2379"}, true, ""},
		"https with slash":       {[]string{"https://etcd-0:2379/"}, true, ""},
		"https without port":     {[]string{"https://etcd-0"}, true, ""},
		"http":                   {[]string{"http://etcd-0:2379"}, true, "is not encrypted"},
		"http in upper case":     {[]string{"HTTP://etcd-0:2379"}, true, "is not encrypted"},
		"http second":            {[]string{"https://etcd-0:2379", "http://etcd-1:2379"}, false, "is not encrypted"},
		"http first":             {[]string{"http://etcd-0:2379", "https://etcd-1:2379"}, false, "is not encrypted"},
		"loopback before https":  {[]string{"http://127.0.0.1:2379", "https://etcd-1:2379"}, false, "differ in encryption"},
		"https before loopback":  {[]string{"https://etcd-1:2379", "http://127.0.0.1:2379"}, false, "differ in encryption"},
		"socket before https":    {[]string{"unix:///run/etcd.sock", "https://etcd-1:2379"}, false, "differ in encryption"},
		"localhost":              {[]string{"http://localhost:2379"}, true, ""},
		"localhost in uppercase": {[]string{"http://LOCALHOST:2379"}, true, ""},
		"loopback":               {[]string{"http://127.0.0.1:2379", "http://127.1.2.3", "http://[::1]:2379"}, true, ""},
		"mapped loopback":        {[]string{"http://[::ffff:127.0.0.1]:2379"}, true, ""},
		"socket":                 {[]string{"unix:///run/etcd.sock", "unix://relative", "unix:other"}, true, ""},
		"encrypted socket":       {[]string{"unixs:///run/etcd.sock", "https://etcd-1"}, true, ""},
		"no scheme":              {[]string{"etcd-0:2379"}, true, "has no scheme"},
		"no scheme, address":     {[]string{"10.0.0.44:2379"}, true, "has no scheme"},
		"no scheme, loopback":    {[]string{"127.0.0.1:2379"}, true, "has no scheme"},
		"no scheme, no port":     {[]string{"etcd-0"}, true, "has no scheme"},
		"no scheme second":       {[]string{"https://etcd-0:2379", "etcd-1:2379"}, false, "has no scheme"},
		"not localhost":          {[]string{"http://localhost.example.com:2379"}, true, "is not encrypted"},
		"part of localhost":      {[]string{"http://localhos:2379"}, true, "is not encrypted"},
		"long s":                 {[]string{"http://localho\u017ft:2379"}, false, "non-ASCII"},
		"not loopback":           {[]string{"http://128.0.0.1:2379"}, true, "is not encrypted"},
		"any address":            {[]string{"http://0.0.0.0:2379"}, true, "is not encrypted"},
		"unix in upper case":     {[]string{"UNIX:///run/etcd.sock"}, false, "is not a valid URL"},
		"other scheme":           {[]string{"ftp://etcd-0:2379"}, false, "has an unknown scheme"},
		"scheme of gRPC":         {[]string{"dns:///etcd-0:2379"}, false, "is not a valid URL"},
		"one slash":              {[]string{"https:/etcd-0:2379"}, false, "must have only a scheme"},
		"no host":                {[]string{"https://"}, false, "is not a valid URL"},
		"empty":                  {[]string{""}, false, "is not a valid URL"},
		"space":                  {[]string{" https://etcd-0:2379"}, false, "has white space"},
		"path":                   {[]string{"https://etcd-0:2379/v3"}, false, "must have only a scheme"},
	} {
		for kind, cfg := range secrets {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				cfg.Endpoints = tc.endpoints
				err := cfg.checkEndpoints()
				if tc.want == "" || (tc.bare && kind == "none") {
					require.NoError(t, err)
					return
				}
				require.ErrorIs(t, err, agrenting.ErrInvalidOption)
				assert.NotContains(t, err.Error(), "hunter2")
				if kind != "none" {
					require.ErrorContains(t, err, tc.want)
				}
				cfg.Name = "x"
				_, err = Open(cfg, WithPlaintext())
				require.ErrorIs(t, err, agrenting.ErrInvalidOption)
			})
		}
	}
}

func TestPasswordsInEndpointsAreRefusedAndHidden(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"https://root:hunter2@etcd-0:2379", "http://root:hunter2@127.0.0.1:2379", "root:hunter2@etcd-0:2379", "https://hunter2@etcd-0",
		"https://root:hunter2/x@etcd-0:2379", "https://hunter2:22/x@etcd-0:2379", "https://root:hunter2#x@etcd-0", "https://root:hunter2?x@etcd-0",
		"https://root:hunter2%zz@etcd-0", "https://root:hunter2 x@etcd-0", "https://root:hunter2\x7f@etcd-0", "https://root:hunter2\u202e@etcd-0",
		"ftp://root:hunter2@etcd-0", "//root:hunter2@etcd-0", "HTTPS://root:hunter2@etcd-0", ":hunter2@", "https://etcd-0/?password=hunter2",
		"https://etcd-0:2379/hunter2", "https://etcd-0#hunter2", "https:root:hunter2@etcd-0", "https://[root:hunter2@etcd-0",
		"UNIX://root:hunter2@/run/etcd.sock", "https://hunter2:x",
	} {
		t.Run(raw, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Name: "x", Endpoints: []string{"https://etcd-9:2379", raw}}
			_, err := Open(cfg, WithPlaintext())
			require.ErrorIs(t, err, agrenting.ErrInvalidOption)
			require.ErrorContains(t, err, "endpoint 2 of 2")
			assert.NotContains(t, err.Error(), "hunter2")
			assertHidden(t, cfg)
		})
	}
	t.Run("socket", func(t *testing.T) {
		t.Parallel()
		cfg := Config{Name: "x", Endpoints: []string{"unix://root:hunter2@/run/etcd.sock"}}
		require.NoError(t, cfg.checkEndpoints(), "it is a path")
		assertHidden(t, cfg)
	})
}

// assertHidden checks every way to print a configuration.
func assertHidden(t *testing.T, cfg Config) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%-40.3v"} {
		for _, v := range []any{cfg, &cfg, []Config{cfg}, map[string]Config{"a": cfg}, struct{ C Config }{cfg}} {
			assert.NotContains(t, fmt.Sprintf(verb, v), "hunter2", verb)
		}
	}
	b, err := json.Marshal(cfg)
	require.NoError(t, err)
	assert.NotContains(t, string(b), "hunter2")
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "cfg", cfg)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "cfg", &cfg)
	assert.NotContains(t, log.String(), "hunter2")
}

func TestConfigPrintsItsEndpoints(t *testing.T) {
	t.Parallel()
	cfg := Config{Name: "x", Endpoints: []string{"https://etcd-0:2379", "etcd-1:2379", "unix:///run/etcd.sock", "http://[::1]:2379", "https://a:b:c"}}
	assert.Equal(t, "etcdstore.Config(x at https://etcd-0:2379,etcd-1:2379,unix:///run/etcd.sock,http://[::1]:2379,invalid endpoint)", cfg.String())
}
