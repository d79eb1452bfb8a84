package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/proxy"
	"github.com/agrenting/agrenting-go/promagrenting"
)

type proxyCmd struct {
	Listen       string        `default:"127.0.0.1:0" placeholder:"ADDR" help:"A loopback address, port 0 for any free one, or unix:PATH for a socket (0600); ${default} by default."`
	Admin        string        `placeholder:"ADDR" help:"Serve /healthz and /metrics on another loopback address or unix:PATH."`
	Session      bool          `help:"Send sessions, renewed as needed, instead of the key."`
	MaxExchanges int           `placeholder:"N" help:"How many sessions may be obtained per minute, 8 by default. After 10, the platform locks the address out for 5 minutes."`
	RequireToken bool          `help:"Require callers to send the proxy's own token, which is random and printed once."`
	Allow        []string      `sep:"none" placeholder:"RULE" help:"Permit only this, such as 'GET /api/v1/agents*'; may be repeated."`
	AllowIssuing bool          `help:"Permit calls that return a new key, token, session, or webhook secret."`
	AnyAgent     bool          `help:"Allow callers to name agents other than --agent in X-Agent-ID."`
	AllowOrigin  []string      `sep:"none" placeholder:"ORIGIN" help:"Permit web pages of this origin, such as http://localhost:5173; may be repeated."`
	ReplayLimit  byteSize      `default:"1MiB" placeholder:"SIZE" help:"Keep bodies of requests up to this size in memory, to send them again if the credential is rejected; ${default} by default, 0 keeps none."`
	Grace        time.Duration `default:"10s" help:"How long requests in progress may take when the proxy stops."`
	Log          string        `enum:",text,json" default:"" placeholder:"FORMAT" help:"Log one line per request to standard error, as text or json."`
	ReadyFile    string        `placeholder:"FILE" help:"Write the proxy's URL to FILE (0600) once it serves, and a token to FILE.token. The files exist only while the proxy serves. A file left by a killed run is replaced; any other existing file is an error."`
}

type jsonProxy struct {
	URL       string   `json:"url"`
	Socket    string   `json:"socket,omitempty"`
	Token     string   `json:"token,omitempty"`
	TokenFile string   `json:"token_file,omitempty"`
	Health    string   `json:"health,omitempty"`
	Metrics   string   `json:"metrics,omitempty"`
	Allow     []string `json:"allow,omitempty"`
}

// replayMemory bounds the bodies that are kept at the same time, unless --replay-limit is
// larger.
const replayMemory = 64 << 20

// Run serves until it is interrupted.
func (c *proxyCmd) Run(a *app) error {
	cfg, err := c.config(a)
	if err != nil {
		return err
	}
	ready, err := newReadyFile("--ready-file", c.ReadyFile, isProxyURL)
	if err != nil {
		return err
	}
	token, err := newReadyFile("--ready-file", c.tokenFile(), isProxyToken)
	if err != nil {
		return err
	}
	c.startLog(a)
	health := &proxy.Health{Tell: func(text string) { c.tell(a, text) }}
	base := proxyBase()
	defer base.CloseIdleConnections()
	metrics := promagrenting.New()
	client, err := c.client(a, base, health, metrics.Option())
	if err != nil {
		return err
	}
	defer client.Close()
	c.connect(a, &cfg, client, health)
	defer health.Close() // before the client is closed
	if cfg.Upstream, err = url.Parse(client.BaseURL()); err != nil {
		return usage("", "the platform's URL is not valid")
	}
	for _, f := range []*readyFile{ready, token} {
		if err := f.clear(); err != nil {
			return err
		}
	}
	l, err := proxy.Listen(a.ctx, c.Listen)
	if err != nil {
		return usage("", "--listen: %v", cause(err))
	}
	defer l.Close()
	cfg.Hosts = proxy.Hosts(l)
	if c.RequireToken {
		cfg.Token = rand.Text()
	}
	admin, stopAdmin, err := c.serveAdmin(a, client, health, metrics)
	if err != nil {
		return err
	}
	defer stopAdmin()
	where := c.announce(a, l, cfg.Token, admin)
	if err := cmp.Or(a.filterErr, a.unwritten(c.RequireToken || c.ReadyFile == "")); err != nil { // no other process can find the proxy
		return err
	}
	if err := token.write(cfg.Token); err != nil {
		return err
	}
	defer token.remove()
	if err := ready.write(where); err != nil { // last, since scripts wait for it
		return err
	}
	defer ready.remove()
	context.AfterFunc(a.ctx, func() { // from now on, only requests in progress are served
		ready.remove()
		token.remove()
	})
	cut, err := proxy.Serve(a.ctx, l, proxy.New(cfg), c.Grace)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return failure("", "the proxy stopped: %v", err)
	}
	if cut > 0 {
		return failure("use a longer --grace for long streams", "%d requests were interrupted at the end", cut)
	}
	a.ui.note("the proxy has ended; no request was interrupted")
	return nil
}

// config checks the flags. It changes nothing.
func (c *proxyCmd) config(a *app) (proxy.Config, error) {
	cfg := proxy.Config{
		Origins: c.AllowOrigin, Issuing: c.AllowIssuing, Explain: explain, Timeout: a.Timeout,
		ReplayLimit: int64(c.ReplayLimit), ReplayMemory: max(replayMemory, int64(c.ReplayLimit)),
	}
	switch {
	case c.MaxExchanges < 0:
		return cfg, usage("", "--max-exchanges cannot be negative")
	case c.MaxExchanges > 0 && !c.Session:
		return cfg, usage("add --session", "--max-exchanges has no effect without sessions")
	}
	for _, text := range c.Allow {
		rule, err := proxy.ParseRule(text)
		if err != nil {
			return cfg, usage("", "--allow: %v", err)
		}
		cfg.Allow = append(cfg.Allow, rule)
	}
	for _, o := range c.AllowOrigin {
		if u, err := url.Parse(o); err != nil || u.Host == "" || u.Path != "" || (u.Scheme != "http" && u.Scheme != "https") {
			return cfg, usage("use scheme, host, and port, such as http://localhost:5173", "--allow-origin is not an origin")
		}
	}
	if err := proxy.CheckAddr(c.Listen); err != nil {
		return cfg, usage("", "--listen: %v", err)
	}
	if c.Admin != "" {
		if err := proxy.CheckAddr(c.Admin); err != nil {
			return cfg, usage("", "--admin: %v", err)
		}
	}
	return cfg, nil
}

// startLog sets the log that --log selects.
func (c *proxyCmd) startLog(a *app) {
	opts := &slog.HandlerOptions{Level: slog.LevelInfo}
	if a.Verbose {
		opts.Level = slog.LevelDebug
	}
	switch c.Log {
	case "json":
		a.ui.quiet = true // notes would be between the records
		a.log = slog.New(slog.NewJSONHandler(a.err, opts))
	case "text":
		a.log = slog.New(slog.NewTextHandler(a.err, opts))
	}
}

// tell prints one line on standard error: the credential cannot be used any more, or it can be
// used again.
func (c *proxyCmd) tell(a *app, text string) {
	if c.Log == "json" {
		a.log.LogAttrs(a.ctx, slog.LevelWarn, "proxy: credential", slog.String("change", visible(text)))
		return
	}
	fmt.Fprintln(a.err, a.ui.errPaint(red, "agrenting:")+" "+visible(text))
}

// client returns the client that lends its credential, and obtains the credential.
func (c *proxyCmd) client(a *app, base *http.Transport, health *proxy.Health, metrics agrenting.Option) (*agrenting.Client, error) {
	var obtained atomic.Bool // the command itself reports the error of the first credential
	var rejected atomic.Uint64
	a.observe = func(e agrenting.Event) {
		switch {
		case e.Type == agrenting.EventRejected:
			rejected.Store(e.Generation)
		case !obtained.Load():
			a.noteRenewal(e)
		case e.Type == agrenting.EventRenewed:
			health.Renewed("a new credential is in use: " + e.Fingerprint)
		case e.Type == agrenting.EventRenewalFailed && (e.Generation == rejected.Load() || (!e.Expires.IsZero() && !e.Expires.After(e.Time))):
			health.Failed("no valid credential, so requests may fail: " + textOf(e.Err))
		}
	}
	opts := []agrenting.Option{metrics, agrenting.WithTransport(base), agrenting.WithRetryPolicy(agrenting.RetryPolicy{})}
	if c.Session {
		opts = append(opts, agrenting.WithSession(agrenting.SessionPolicy{LogoutOnClose: true, MaxExchanges: c.MaxExchanges}))
	}
	client, err := a.client(opts...)
	if err != nil {
		return nil, err
	}
	// Obtain the credential now, so that its errors are reported at the start.
	stop := a.waiting("obtaining the credential")
	_, err = client.Credential(a.ctx)
	stop()
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	obtained.Store(true)
	return client, nil
}

// connect lets the proxy use the client.
func (c *proxyCmd) connect(a *app, cfg *proxy.Config, client *agrenting.Client, health *proxy.Health) {
	status := client.Status()
	cfg.Transport, cfg.Socket = client.Transport(), client.SocketHTTPClient().Transport
	cfg.DefaultAgent, cfg.Log = status.AgentID, a.log
	if !c.AnyAgent {
		cfg.Agent = status.AgentID
	}
	health.Verify = func(ctx context.Context) (string, proxy.Verdict) {
		v := verdictOf(client.Verify(ctx))
		s, remedy := client.Status(), "restart the proxy with a valid credential"
		if s.Source == varKeyFile || a.Store != "" { // the source is read again
			remedy = "replace it in its source"
		}
		if v == proxy.Alive {
			return "the platform accepts the credential " + s.Fingerprint + " again", v
		}
		return fmt.Sprintf("the platform rejects the credential %s (%s), so requests fail with 401; %s", s.Fingerprint, s.Source, remedy), v
	}
	cfg.Rejected = func(generation uint64) { health.Rejected(a.ctx, generation) }
	cfg.Succeeded = func() { health.Recheck(a.ctx) }
}

// verdictOf converts the result of [agrenting.Client.Verify].
func verdictOf(err error) proxy.Verdict {
	switch {
	case err == nil:
		return proxy.Alive
	case errors.Is(err, agrenting.ErrUnauthorized):
		return proxy.Dead
	default:
		return proxy.Unknown
	}
}

// serveAdmin serves /healthz and /metrics if --admin is given.
func (c *proxyCmd) serveAdmin(a *app, client *agrenting.Client, health *proxy.Health, metrics prometheus.Collector) (at string, stop func(), err error) {
	if c.Admin == "" {
		return "", func() {}, nil
	}
	report := func() proxy.Report {
		health.Recheck(a.ctx) // without traffic, nothing else asks the platform again
		s := client.Status()
		r := proxy.Report{Status: "ok", Problem: health.Problem(), Generation: s.Generation, Credential: s.Fingerprint}
		if !s.Expires.IsZero() {
			r.Expires = &s.Expires
		}
		switch {
		case a.ctx.Err() != nil:
			r.Status = "ending"
		case r.Problem != "":
			r.Status = "no credential"
		}
		return r
	}
	page, err := metricsPage(metrics)
	if err != nil {
		return "", nil, err
	}
	at, stop, err = proxy.ServeAdmin(a.ctx, c.Admin, func(hosts []string) http.Handler { return proxy.Admin(hosts, report, page) })
	if err != nil {
		return "", nil, usage("", "--admin: %v", cause(err))
	}
	return at, stop, nil
}

// tokenFile returns the path of the file with the token, or "" if there is none.
func (c *proxyCmd) tokenFile() string {
	if c.ReadyFile == "" || !c.RequireToken {
		return ""
	}
	return c.ReadyFile + ".token"
}

// proxyToken matches a token.
var proxyToken = regexp.MustCompile(`\A[A-Z2-7]{26}\n\z`)

// isProxyToken reports whether a file has only the token of a proxy.
func isProxyToken(text string) bool { return proxyToken.MatchString(text) }

// isProxyURL reports whether a file has only the URL of a proxy.
func isProxyURL(text string) bool {
	line, ended := strings.CutSuffix(text, "\n")
	u, err := url.Parse(line)
	if !ended || err != nil {
		return false
	}
	if u.Host == "localhost" { // the URL of a proxy on a socket
		return line == "http://localhost"
	}
	at, err := netip.ParseAddrPort(u.Host)
	return err == nil && at.Addr().IsLoopback() && line == "http://"+u.Host
}

// proxyBase returns a transport for many concurrent callers.
func proxyBase() *http.Transport {
	base := agrenting.NewBaseTransport()
	base.MaxIdleConns, base.MaxIdleConnsPerHost = 512, 256
	return base
}

// announce prints the address of the proxy, and returns its URL. The token is shown only here.
func (c *proxyCmd) announce(a *app, l net.Listener, token, admin string) string {
	j := jsonProxy{URL: "http://" + l.Addr().String(), Token: token, TokenFile: c.tokenFile(), Allow: c.Allow}
	if l.Addr().Network() == "unix" {
		j.Socket, j.URL = l.Addr().String(), "http://localhost"
	}
	curl := "curl "
	if token != "" {
		// Every program of the machine can read an argument, so the token is not one.
		curl = "printf 'X-Proxy-Token: " + token + "' | curl -H @- "
	}
	if j.Socket != "" {
		curl += "--unix-socket " + shellQuoted(j.Socket) + " "
	}
	health := ""
	if socket, ok := strings.CutPrefix(admin, "unix:"); ok {
		j.Health, j.Metrics, health = admin, admin, "curl --unix-socket "+shellQuoted(socket)+" http://localhost/healthz"
	} else if admin != "" {
		j.Health, j.Metrics = admin+"/healthz", admin+"/metrics"
		health = j.Health
	}
	if a.JSON {
		a.encode(j)
		return j.URL
	}
	a.ui.line("serving %s at %s", a.baseURL(), a.ui.paint(bold, j.URL))
	if j.Socket != "" {
		a.ui.line("socket  %s", j.Socket)
	}
	if health != "" {
		a.ui.line("health  %s", health)
	}
	if token == "" {
		a.ui.note("%s%s/api/v1/agents", curl, j.URL)
		return j.URL
	}
	shown := "shown only once"
	if j.TokenFile != "" {
		shown = "while the proxy serves, also in " + j.TokenFile
	}
	a.ui.line("token   %s   (%s)", token, shown)
	a.ui.line("%s%s/api/v1/agents", curl, j.URL) // not to standard error, which may be a log
	return j.URL
}

// byteSize is a size such as 1MiB, 512KiB, or 65536.
type byteSize int64

const maxByteSize = 1 << 30

// UnmarshalText implements [encoding.TextUnmarshaler].
func (b *byteSize) UnmarshalText(text []byte) error {
	number, factor := strings.TrimSpace(string(text)), int64(1)
	for unit, f := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if n, ok := strings.CutSuffix(number, unit); ok {
			number, factor = strings.TrimSpace(n), f
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > maxByteSize/factor {
		return fmt.Errorf("invalid size %q (want bytes, or a number with KiB, MiB, or GiB, up to 1GiB, such as 1MiB)", text)
	}
	*b = byteSize(n * factor)
	return nil
}

// explain turns an error of the SDK into a response for a caller. The response does not describe
// the credential.
func explain(err error) (status int, code, text string, retryAfter time.Duration) {
	text = strings.TrimSuffix(textOf(err), ".")
	if l, ok := errors.AsType[*agrenting.LockoutError](err); ok {
		return http.StatusServiceUnavailable, "PROXY_LOCKED_OUT", text, time.Until(l.RetryAt)
	}
	if r, ok := errors.AsType[*agrenting.RenewalError](err); ok {
		after := time.Duration(0)
		if !r.RetryAt.IsZero() {
			after = max(0, time.Until(r.RetryAt))
		}
		return http.StatusServiceUnavailable, "PROXY_NO_CREDENTIAL", text, after
	}
	switch {
	case errors.Is(err, agrenting.ErrNoCredential), errors.Is(err, agrenting.ErrInvalidCredential), errors.Is(err, agrenting.ErrEnvironmentMismatch):
		return http.StatusServiceUnavailable, "PROXY_NO_CREDENTIAL", text, 0
	case errors.Is(err, agrenting.ErrInvalidAgentID):
		return http.StatusUnprocessableEntity, "PROXY_AGENT_ID", text, 0
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout, "PROXY_TIMEOUT", "the platform did not respond in time", 0
	default:
		return http.StatusBadGateway, "PROXY_UPSTREAM", "the platform cannot be reached", 0
	}
}
