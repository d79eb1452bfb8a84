// Package peer wires other people's clients and this SDK in the same way, so
// that one harness can drive them all. Each gets the settings that show it at
// its best; what these are is said beside them.
package peer

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/httptransport"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/bradleyfalzon/ghinstallation/v2"
	"github.com/gophercloud/gophercloud/v2"
	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/oauth2"
)

// Token is what an exchange yields.
type Token struct {
	Value   string    `json:"value"`
	Expires time.Time `json:"expires"`
}

// Config is what a peer is built from.
type Config struct {
	// Base sends the requests.
	Base http.RoundTripper
	// URL is the origin of the platform.
	URL string
	// Exchange asks the token endpoint. Peers that have an endpoint of their
	// own call it from there.
	Exchange func(ctx context.Context) (Token, error)
	// Early is how long before the expiry those renew who can be told so.
	Early time.Duration
}

// Peer is a client under test. Fields that it has no equivalent of are nil.
type Peer struct {
	Name string
	// Transport adds the credential to any request.
	Transport http.RoundTripper
	// Call makes a whole call: it builds the request, with the headers, sends
	// it and returns the answer.
	Call func(ctx context.Context, method, url string, header http.Header, body []byte) (*http.Response, error)
	// Read reads the credential in use.
	Read func(ctx context.Context) error
	// Close ends what runs in the background.
	Close func()
}

// Builder makes a peer.
type Builder struct {
	Name  string
	Build func(cfg Config) (*Peer, error)
}

// Fixed is an exchange for benchmarks: it answers at once with a credential
// that expires, but not soon.
func Fixed(context.Context) (Token, error) {
	return Token{Value: "token-of-the-benchmark", Expires: time.Now().Add(24 * time.Hour)}, nil
}

// OverTransport completes a peer that is nothing but an [http.RoundTripper].
func OverTransport(name string, rt http.RoundTripper) *Peer {
	return OverClient(name, &http.Client{Transport: rt})
}

// OverClient completes a peer that is an [http.Client].
func OverClient(name string, c *http.Client) *Peer {
	return &Peer{
		Name: name, Transport: c.Transport, Close: func() {},
		Call: func(ctx context.Context, method, url string, header http.Header, body []byte) (*http.Response, error) {
			req, err := newRequest(ctx, method, url, header, body)
			if err != nil {
				return nil, err
			}
			return c.Do(req)
		},
	}
}

// newRequest builds a request as callers do: bodies get a GetBody from
// net/http, headers are set one by one.
func newRequest(ctx context.Context, method, url string, header http.Header, body []byte) (*http.Request, error) {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header.Set(name, values[0])
	}
	return req, nil
}

// Bare is the base alone.
func Bare(cfg Config) (*Peer, error) { return OverTransport("bare base", cfg.Base), nil }

// Least is the floor.
func Least(cfg Config) (*Peer, error) {
	t, err := cfg.Exchange(context.Background())
	if err != nil {
		return nil, err
	}
	return OverTransport("floor", &Floor{Base: cfg.Base, Values: []string{"Bearer " + t.Value}}), nil
}

// LeastChecked is the floor with the caller's headers checked.
func LeastChecked(cfg Config) (*Peer, error) {
	t, err := cfg.Exchange(context.Background())
	if err != nil {
		return nil, err
	}
	floor := Floor{Base: cfg.Base, Values: []string{"Bearer " + t.Value}}
	return OverTransport("floor, headers checked", &CheckedFloor{floor}), nil
}

type oauth2Source struct{ cfg Config }

func (s oauth2Source) Token() (*oauth2.Token, error) {
	t, err := s.cfg.Exchange(context.Background()) // its interface has no context
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: t.Value, Expiry: t.Expires}, nil
}

// margin is how long before the expiry those renew who make their callers wait
// for it: enough for a request that is on its way, and no more, since they wait
// in it all the same. Their defaults, from 10 s to 225 s, would never let a
// session of 1 s be valid.
const margin = 20 * time.Millisecond

// OAuth2 is golang.org/x/oauth2.
func OAuth2(cfg Config) (*Peer, error) {
	src := oauth2.ReuseTokenSourceWithExpiry(nil, oauth2Source{cfg}, margin)
	p := OverTransport("x/oauth2", &oauth2.Transport{Source: src, Base: cfg.Base})
	p.Read = func(context.Context) error {
		_, err := src.Token()
		return err
	}
	return p, nil
}

type cloudSource struct{ cfg Config }

func (s cloudSource) Token(ctx context.Context) (*auth.Token, error) {
	t, err := s.cfg.Exchange(ctx)
	if err != nil {
		return nil, err
	}
	return &auth.Token{Value: t.Value, Type: "Bearer", Expiry: t.Expires}, nil
}

func cloudCredentials(cfg Config, sync bool) *auth.Credentials {
	o := &auth.CachedTokenProviderOptions{ExpireEarly: cfg.Early, DisableAsyncRefresh: sync}
	if sync {
		o.ExpireEarly = margin
	}
	return auth.NewCredentials(&auth.CredentialsOptions{
		TokenProvider: auth.NewCachedTokenProvider(cloudSource{cfg}, o),
	})
}

// cloud builds cloud.google.com/go/auth.
func cloud(cfg Config, name string, sync, telemetry bool) (*Peer, error) {
	creds := cloudCredentials(cfg, sync)
	c, err := httptransport.NewClient(&httptransport.Options{
		BaseRoundTripper: cfg.Base, Credentials: creds, DisableTelemetry: !telemetry,
		InternalOptions: &httptransport.InternalOptions{SkipUniverseDomainValidation: true},
	})
	if err != nil {
		return nil, err
	}
	p := OverClient(name, c)
	p.Read = func(ctx context.Context) error {
		_, err := creds.Token(ctx)
		return err
	}
	return p, nil
}

// CloudDefault is cloud.google.com/go/auth as it comes: renewed in the
// background, with telemetry hooks.
func CloudDefault(cfg Config) (*Peer, error) { return cloud(cfg, "cloud auth", false, true) }

// CloudQuiet is the same without its telemetry.
func CloudQuiet(cfg Config) (*Peer, error) {
	return cloud(cfg, "cloud auth, no telemetry", false, false)
}

// CloudSync renews in the foreground, without telemetry.
func CloudSync(cfg Config) (*Peer, error) {
	return cloud(cfg, "cloud auth, sync", true, false)
}

// CloudMiddleware is the credential alone, its cheapest form.
func CloudMiddleware(cfg Config) (*Peer, error) {
	c := &http.Client{Transport: cfg.Base}
	creds := cloudCredentials(cfg, false)
	if err := httptransport.AddAuthorizationMiddleware(c, creds); err != nil {
		return nil, err
	}
	return OverClient("cloud auth, middleware", c), nil
}

type azureCredential struct{ cfg Config }

func (s azureCredential) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	t, err := s.cfg.Exchange(ctx)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	return azcore.AccessToken{Token: t.Value, ExpiresOn: t.Expires, RefreshOn: t.Expires.Add(-s.cfg.Early)}, nil
}

type azureTransport struct{ base http.RoundTripper }

func (t azureTransport) Do(req *http.Request) (*http.Response, error) { return t.base.RoundTrip(req) }

// azure builds a pipeline of azcore around a policy that authenticates. It has
// no RoundTripper of its own. Its retries of failed requests are off, since
// they would hide what is counted here.
func azure(cfg Config, name string, auth policy.Policy) *Peer {
	pl := runtime.NewPipeline("bench", "v1", runtime.PipelineOptions{PerRetry: []policy.Policy{auth}},
		&policy.ClientOptions{
			Transport: azureTransport{cfg.Base},
			Retry:     policy.RetryOptions{MaxRetries: -1},
			Telemetry: policy.TelemetryOptions{Disabled: true},
		})
	return &Peer{
		Name: name, Close: func() {},
		Call: func(ctx context.Context, method, url string, header http.Header, body []byte) (*http.Response, error) {
			req, err := runtime.NewRequest(ctx, method, url)
			if err != nil {
				return nil, err
			}
			for name, values := range header {
				req.Raw().Header.Set(name, values[0])
			}
			if body != nil {
				err := req.SetBody(readSeekNopCloser{bytes.NewReader(body)}, "application/octet-stream")
				if err != nil {
					return nil, err
				}
			}
			return pl.Do(req)
		},
	}
}

type readSeekNopCloser struct{ *bytes.Reader }

func (readSeekNopCloser) Close() error { return nil }

// AzureBearer is azcore with its policy for tokens. It asks ahead at most once
// in 30 s, so short sessions show it renewing at the expiry.
func AzureBearer(cfg Config) (*Peer, error) {
	return azure(cfg, "azcore bearer", runtime.NewBearerTokenPolicy(azureCredential{cfg}, []string{"scope"},
		&policy.BearerTokenOptions{InsecureAllowCredentialWithHTTP: true})), nil
}

// AzureKey is azcore with its policy for keys that do not expire.
func AzureKey(cfg Config) (*Peer, error) {
	return azure(cfg, "azcore key", runtime.NewKeyCredentialPolicy(azcore.NewKeyCredential("key-of-the-benchmark"), "X-Api-Key",
		&runtime.KeyCredentialPolicyOptions{InsecureAllowCredentialWithHTTP: true})), nil
}

// githubBase answers GitHub's call for an installation token by an exchange;
// ghinstallation makes it through the base of its requests.
type githubBase struct{ cfg Config }

// githubMargin is how long before the expiry ghinstallation renews. It cannot
// be changed; what is more than our margin is added to the expiry.
const githubMargin = time.Minute

// RoundTrip implements [http.RoundTripper].
func (b githubBase) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodPost || !strings.HasSuffix(req.URL.Path, "/access_tokens") {
		return b.cfg.Base.RoundTrip(req)
	}
	t, err := b.cfg.Exchange(req.Context())
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]any{"token": t.Value, "expires_at": t.Expires.Add(githubMargin - margin)})
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusCreated, Header: http.Header{},
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: req,
	}, nil
}

// githubKey is made once: it signs what nobody verifies here.
var githubKey = sync.OnceValues(func() ([]byte, error) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}), nil
})

// GitHub is bradleyfalzon/ghinstallation.
func GitHub(cfg Config) (*Peer, error) {
	key, err := githubKey()
	if err != nil {
		return nil, err
	}
	t, err := ghinstallation.New(githubBase{cfg}, 1, 2, key)
	if err != nil {
		return nil, err
	}
	p := OverTransport("ghinstallation", t)
	p.Read = func(ctx context.Context) error {
		_, err := t.Token(ctx)
		return err
	}
	return p, nil
}

// Gophercloud is gophercloud's provider client. It knows no expiry: it renews
// on a 401 and repeats the request.
func Gophercloud(cfg Config) (*Peer, error) {
	c := &gophercloud.ProviderClient{HTTPClient: http.Client{Transport: cfg.Base}}
	c.UseTokenLock()
	c.ReauthFunc = func(ctx context.Context) error {
		t, err := cfg.Exchange(ctx)
		if err != nil {
			return err
		}
		c.SetToken(t.Value)
		return nil
	}
	if err := c.ReauthFunc(context.Background()); err != nil {
		return nil, err
	}
	return &Peer{
		Name: "gophercloud", Close: func() {},
		Call: func(ctx context.Context, method, url string, header http.Header, body []byte) (*http.Response, error) {
			opts := &gophercloud.RequestOpts{
				KeepResponseBody: true, OkCodes: []int{http.StatusOK}, MoreHeaders: make(map[string]string, len(header)),
			}
			for name, values := range header {
				opts.MoreHeaders[name] = values[0]
			}
			if body != nil {
				opts.RawBody = bytes.NewReader(body)
			}
			return c.Request(ctx, method, url, opts)
		},
		Read: func(context.Context) error {
			if c.AuthenticatedHeaders() == nil {
				return errNoToken
			}
			return nil
		},
	}, nil
}

var errNoToken = errors.New("no token")

// Retryable is hashicorp/go-retryablehttp alone, without any credential.
func Retryable(cfg Config) (*Peer, error) {
	c := retryablehttp.NewClient()
	c.HTTPClient = &http.Client{Transport: cfg.Base}
	c.Logger = nil
	return &Peer{
		Name: "go-retryablehttp", Close: func() {},
		Transport: &retryablehttp.RoundTripper{Client: c},
		Call: func(ctx context.Context, method, url string, header http.Header, body []byte) (*http.Response, error) {
			var raw any
			if body != nil {
				raw = body
			}
			req, err := retryablehttp.NewRequestWithContext(ctx, method, url, raw)
			if err != nil {
				return nil, err
			}
			for name, values := range header {
				req.Header.Set(name, values[0])
			}
			return c.Do(req)
		},
	}, nil
}
