// Package peer makes other Go clients and this SDK available in the same form,
// so that one harness can drive all of them. Each client has the settings that
// show it at its best, which comments explain.
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

// Token is the result of an exchange.
type Token struct {
	Value   string    `json:"value"`
	Expires time.Time `json:"expires"`
}

// Config configures a peer, such as Config{Base: Stub{}, URL:
// "https://agrenting.com", Exchange: Fixed}. Most callers only set these three
// fields.
type Config struct {
	// Base sends the requests.
	Base http.RoundTripper
	// URL is the origin of the platform.
	URL string
	// Exchange calls the token endpoint. Peers with their own endpoint call it
	// from there.
	Exchange func(ctx context.Context) (Token, error)
	// Early is how long before the expiry a peer renews, such as 200 ms, if that
	// can be set.
	Early time.Duration
}

// Peer is a client under test, such as the peer "agrenting, static key". A
// field is nil if the client has no equivalent of it. Most callers only use
// Call.
type Peer struct {
	Name string
	// Transport adds the credential to a request.
	Transport http.RoundTripper
	// Call makes a whole call: it builds the request with the headers, sends it,
	// and returns the response.
	Call func(ctx context.Context, method, url string, header http.Header, body []byte) (*http.Response, error)
	// Read reads the current credential.
	Read func(ctx context.Context) error
	// Close stops background work.
	Close func()
}

// Builder builds a peer.
type Builder struct {
	Name  string
	Build func(cfg Config) (*Peer, error)
}

// Fixed is an exchange for benchmarks: it returns at once with a credential
// that expires much later.
func Fixed(context.Context) (Token, error) {
	return Token{Value: "token-of-the-benchmark", Expires: time.Now().Add(24 * time.Hour)}, nil
}

// OverTransport returns a peer for a client that is only an
// [http.RoundTripper].
func OverTransport(name string, rt http.RoundTripper) *Peer {
	return OverClient(name, &http.Client{Transport: rt})
}

// OverClient returns a peer for a client that is an [http.Client].
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

// newRequest builds a request as callers do: net/http gives a body its GetBody,
// and headers are set one by one.
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

// Bare is the base without a client.
func Bare(cfg Config) (*Peer, error) { return OverTransport("bare base", cfg.Base), nil }

// Least is the floor without checks.
func Least(cfg Config) (*Peer, error) {
	t, err := cfg.Exchange(context.Background())
	if err != nil {
		return nil, err
	}
	return OverTransport("floor", &Floor{Base: cfg.Base, Values: []string{"Bearer " + t.Value}}), nil
}

// LeastChecked is the floor that checks the caller's headers.
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
	t, err := s.cfg.Exchange(context.Background()) // the interface has no context
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: t.Value, Expiry: t.Expires}, nil
}

// margin is how long before the expiry clients renew if their callers wait for
// the renewal. It is just long enough for a request that is in progress,
// because the callers wait in any case. The default margins, from 10 s to 225
// s, are longer than a session of 1 s.
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

// cloud returns a peer with cloud.google.com/go/auth.
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

// CloudDefault is cloud.google.com/go/auth with its defaults: renewal in the
// background, with telemetry hooks.
func CloudDefault(cfg Config) (*Peer, error) { return cloud(cfg, "cloud auth", false, true) }

// CloudQuiet is the same without telemetry.
func CloudQuiet(cfg Config) (*Peer, error) {
	return cloud(cfg, "cloud auth, no telemetry", false, false)
}

// CloudSync renews in the foreground, without telemetry.
func CloudSync(cfg Config) (*Peer, error) {
	return cloud(cfg, "cloud auth, sync", true, false)
}

// CloudMiddleware only adds the credential, which is its least expensive form.
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

// azure returns a peer with an azcore pipeline and an authentication policy.
// azcore has no RoundTripper. Its retries of failed requests are off, because
// they would hide failures that are counted here.
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

// AzureBearer is azcore with its policy for tokens. It renews ahead of the
// expiry at most once in 30 s, so it renews short sessions at their expiry.
func AzureBearer(cfg Config) (*Peer, error) {
	return azure(cfg, "azcore bearer", runtime.NewBearerTokenPolicy(azureCredential{cfg}, []string{"scope"},
		&policy.BearerTokenOptions{InsecureAllowCredentialWithHTTP: true})), nil
}

// AzureKey is azcore with its policy for keys that do not expire.
func AzureKey(cfg Config) (*Peer, error) {
	return azure(cfg, "azcore key", runtime.NewKeyCredentialPolicy(azcore.NewKeyCredential("key-of-the-benchmark"), "X-Api-Key",
		&runtime.KeyCredentialPolicyOptions{InsecureAllowCredentialWithHTTP: true})), nil
}

// githubBase replaces GitHub's response to a request for an installation token
// with an exchange. ghinstallation sends that request through the base of its
// requests.
type githubBase struct{ cfg Config }

// githubMargin is how long before the expiry ghinstallation renews. It cannot
// be changed, so the difference from margin is added to the expiry.
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

// githubKey is made once. It only makes signatures that are not verified here.
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

// Gophercloud is the provider client of gophercloud. It does not use the
// expiry: it renews after a 401 and repeats the request.
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

// Retryable is hashicorp/go-retryablehttp alone, without a credential.
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
