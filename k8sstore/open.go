package k8sstore

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/agrenting/agrenting-go"
)

// Config describes where the Secrets are. It prints without credentials.
type Config struct {
	// Name distinguishes fleets in one namespace, such as "writer". It begins the names
	// of the Secrets and consists of at most 63 lowercase letters, digits, and hyphens.
	Name string
	// Namespace is where the Secrets are, such as "production". The default is the
	// namespace of the pod.
	Namespace string
	// REST describes how to reach the API server. The default is the service account of
	// the pod. Open copies it and does not use its timeout and rate limits: the store
	// has its own connections, and its own limit of 50 requests per second with bursts
	// of 100. Transport must be nil, except with [WithInsecure].
	REST *rest.Config
}

// String returns a summary without credentials.
func (c Config) String() string {
	return fmt.Sprintf("k8sstore.Config(%s/%s)", c.Namespace, c.Name)
}

// GoString returns what String returns.
func (c Config) GoString() string { return c.String() }

// Format writes what String returns, for every verb and flag.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue returns what String returns.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText returns what String returns.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

const (
	// requestsPerSecond and burst limit the requests of one store.
	requestsPerSecond = 50
	burst             = 100
	// namespaceFile is where a pod finds its namespace.
	namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
)

// Open returns a store. It does not call the API server; the first operation does.
//
// Open requires [WithSealingKey] or [WithPlaintext]. Invalid options are an
// [agrenting.ErrInvalidOption]. Outside a pod, Config.REST and Config.Namespace are
// required. Open refuses plain http to other hosts and TLS without verification, see
// [WithInsecure].
func Open(cfg Config, opts ...Option) (*Store, error) {
	return open(cfg, namespaceFile, opts)
}

func open(cfg Config, namespaceFile string, opts []Option) (*Store, error) {
	o := options{timeout: DefaultTimeout}
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if len(validation.IsDNS1123Label(cfg.Name)) > 0 {
		return nil, invalid("Open", "invalid Config.Name (want 1 to 63 lowercase letters, digits, and hyphens, with a letter or digit at both ends)")
	}
	var err error
	if cfg.REST == nil {
		if cfg.REST, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("%w: k8sstore: Open: the service account of the pod cannot be used: %w. Outside a pod, set Config.REST, "+
				"for example to the result of clientcmd.BuildConfigFromFlags", agrenting.ErrInvalidOption, err)
		}
	}
	if cfg.Namespace == "" {
		text, err := os.ReadFile(namespaceFile) // #nosec G304 -- the file of the pod
		if err != nil {
			return nil, invalid("Open", "the namespace of a pod cannot be read ("+cause(err)+"). Outside a pod, set Config.Namespace")
		}
		cfg.Namespace = strings.TrimSpace(string(text))
	}
	if len(validation.IsDNS1123Label(cfg.Namespace)) > 0 {
		return nil, invalid("Open", "invalid namespace (want 1 to 63 lowercase letters, digits, and hyphens)")
	}
	if err := checkHost(cfg.REST, o.insecure); err != nil {
		return nil, err
	}
	r := &records{
		namespace: cfg.Namespace, name: cfg.Name, timeout: o.timeout,
		limiter: flowcontrol.NewTokenBucketRateLimiter(requestsPerSecond, burst),
		conns:   connrotation.NewConnectionTracker(),
	}
	if r.client, err = client(cfg.REST, r.conns); err != nil {
		return nil, fmt.Errorf("%w: k8sstore: Open: Config.REST: %w", agrenting.ErrInvalidOption, err)
	}
	return newStore(r, o)
}

// cause returns the text of an error without the path that it names.
func cause(err error) string {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		err = e.Err
	}
	return err.Error()
}

// client returns a client for Secrets with its own connections.
func client(cfg *rest.Config, conns *connrotation.ConnectionTracker) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	cfg = rest.CopyConfig(cfg)
	cfg.APIPath, cfg.GroupVersion = "/api", &corev1.SchemeGroupVersion
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	cfg.UserAgent = "agrenting-go/" + agrenting.Version + " k8sstore"
	cfg.Timeout = 0                                          // it would end watches
	cfg.RateLimiter = flowcontrol.NewFakeAlwaysRateLimiter() // send waits for the store's own
	cfg.WarningHandler, cfg.WarningHandlerWithContext = nil, rest.NoWarnings{}
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	cfg.Dial = connrotation.NewDialerWithTracker(dial, conns).DialContext
	transport, err := rest.TransportFor(cfg)
	if err != nil {
		return nil, err
	}
	return rest.RESTClientForConfigAndClient(cfg, &http.Client{
		Transport: transport,
		// The transport would send the credentials to wherever a redirect leads.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
}

// checkHost refuses a configuration that would send credentials or records unencrypted.
func checkHost(cfg *rest.Config, insecure bool) error {
	u, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil || u.Hostname() == "" {
		return invalid("Open", "Config.REST.Host is not a valid URL; write it like https://10.0.0.1:6443")
	}
	at := (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
	switch {
	case u.User != nil:
		return invalid("Open", "Config.REST.Host has user information; set BearerToken, or Username and Password")
	case u.Scheme != "http" && u.Scheme != "https":
		return invalid("Open", "Config.REST.Host has an unknown scheme (want https)")
	case insecure:
		return nil
	case cfg.Transport != nil:
		return invalid("Open", "Config.REST.Transport is set, so the store cannot verify the connections to "+at+
			"; set TLSClientConfig and Dial instead. WithInsecure allows this")
	case u.Scheme == "http" && !isLoopback(strings.ToLower(u.Hostname())):
		return invalid("Open", "Config.REST.Host "+at+" is not encrypted; use https. WithInsecure allows plain http, "+
			"which anyone on the network path can read")
	case cfg.Insecure:
		return invalid("Open", "Config.REST does not verify "+at+" (Insecure is set); set CAData or CAFile. WithInsecure allows this")
	}
	return nil
}

// isLoopback reports whether a host in lower case is this machine, whatever a name server
// says.
func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	if err != nil {
		return host == "localhost"
	}
	return a.Unmap().IsLoopback()
}
