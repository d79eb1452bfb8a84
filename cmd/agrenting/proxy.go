package main

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/proxy"
)

type proxyCmd struct {
	Listen       string        `default:"127.0.0.1:0" placeholder:"ADDR" help:"A loopback address, port 0 for any free one, or unix:PATH for a socket (0600); ${default} by default."`
	Session      bool          `help:"Send sessions, renewed as needed, instead of the key."`
	RequireToken bool          `help:"Ask callers for a token of the proxy's own, which is made up and printed once."`
	Allow        []string      `sep:"none" placeholder:"RULE" help:"Permit only this, such as 'GET /api/v1/agents*'; may be repeated."`
	AllowIssuing bool          `help:"Permit calls whose answer has a new key, token, session or webhook secret in it."`
	AnyAgent     bool          `help:"Let callers name other agents than --agent in X-Agent-ID."`
	AllowOrigin  []string      `sep:"none" placeholder:"ORIGIN" help:"Permit web pages of this origin, such as http://localhost:5173; may be repeated."`
	Grace        time.Duration `default:"10s" help:"How long requests under way may take at the end."`
	ReadyFile    string        `placeholder:"FILE" help:"Write the proxy's URL to FILE (0600) once it serves. FILE is there while it serves: one that a killed run has left is replaced, its own removed at the end, and any other file refused."`
}

type jsonProxy struct {
	URL    string   `json:"url"`
	Socket string   `json:"socket,omitempty"`
	Token  string   `json:"token,omitempty"`
	Allow  []string `json:"allow,omitempty"`
}

// Run serves until it is interrupted.
func (c *proxyCmd) Run(a *app) error {
	cfg := proxy.Config{Origins: c.AllowOrigin, Issuing: c.AllowIssuing, Explain: explain, Log: a.log}
	for _, text := range c.Allow {
		rule, err := proxy.ParseRule(text)
		if err != nil {
			return usage("", "--allow: %v", err)
		}
		cfg.Allow = append(cfg.Allow, rule)
	}
	for _, o := range c.AllowOrigin {
		if u, err := url.Parse(o); err != nil || u.Host == "" || u.Path != "" || (u.Scheme != "http" && u.Scheme != "https") {
			return usage("an origin is scheme, host and port, such as http://localhost:5173", "--allow-origin is no origin")
		}
	}
	if !strings.HasPrefix(c.Listen, "unix:") { // before anything is touched
		if _, err := loopback(c.Listen, "use 127.0.0.1, [::1] or unix:/path/to/socket"); err != nil {
			return err
		}
	}
	ready, err := newReadyFile("--ready-file", c.ReadyFile, isProxyURL)
	if err != nil {
		return err
	}
	base := proxyBase()
	defer base.CloseIdleConnections()
	opts := []agrenting.Option{
		agrenting.WithTransport(base), agrenting.WithRetryPolicy(agrenting.RetryPolicy{}), agrenting.WithObserver(func(agrenting.Event) {}),
	}
	if c.Session {
		opts = append(opts, agrenting.WithSession(agrenting.SessionPolicy{LogoutOnClose: true}))
	}
	client, err := a.client(opts...)
	if err != nil {
		return err
	}
	defer client.Close()
	// Whatever is wrong with the credential is better known now.
	stop := a.waiting("obtaining the credential")
	_, err = client.Credential(a.ctx)
	stop()
	if err != nil {
		return err
	}
	cfg.Transport = client.Transport()
	if !c.AnyAgent {
		cfg.Agent = client.Status().AgentID
	}
	if cfg.Upstream, err = url.Parse(client.BaseURL()); err != nil {
		return usage("", "the platform's URL cannot be parsed")
	}
	if err := ready.clear(); err != nil {
		return err
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
	where := c.announce(a, l, cfg.Token)
	if err := a.unwritten(c.RequireToken || c.ReadyFile == ""); err != nil { // no other process would know of it
		return err
	}
	if err := ready.write(where); err != nil {
		return err
	}
	defer ready.remove()
	context.AfterFunc(a.ctx, ready.remove) // newcomers are turned away while the last requests end
	cut, err := proxy.Serve(a.ctx, l, proxy.New(cfg), c.Grace)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return failure("", "the proxy stopped: %v", err)
	}
	if cut > 0 {
		return failure("give longer streams a longer --grace", "%d requests were cut short at the end", cut)
	}
	a.ui.note("the proxy has ended; no request was cut short")
	return nil
}

// isProxyURL reports whether a file has the URL of a proxy in it and nothing else.
func isProxyURL(text string) bool {
	line, ended := strings.CutSuffix(text, "\n")
	u, err := url.Parse(line)
	if !ended || err != nil {
		return false
	}
	if u.Host == "localhost" { // of a socket
		return line == "http://localhost"
	}
	at, err := netip.ParseAddrPort(u.Host)
	return err == nil && at.Addr().IsLoopback() && line == "http://"+u.Host
}

// proxyBase is a transport for many callers at once.
func proxyBase() *http.Transport {
	base := agrenting.NewBaseTransport()
	base.MaxIdleConns, base.MaxIdleConnsPerHost = 512, 256
	return base
}

// announce says where the proxy is, and returns its URL. The token is shown here
// only.
func (c *proxyCmd) announce(a *app, l net.Listener, token string) string {
	j := jsonProxy{URL: "http://" + l.Addr().String(), Token: token, Allow: c.Allow}
	if l.Addr().Network() == "unix" {
		j.Socket, j.URL = l.Addr().String(), "http://localhost"
	}
	if a.JSON {
		encode(a.out, j)
	} else {
		a.ui.line("serving %s at %s", a.baseURL(), a.ui.paint(bold, j.URL))
		curl := "curl " + j.URL + "/api/v1/agents"
		if j.Socket != "" {
			a.ui.line("socket  %s", j.Socket)
			curl = "curl --unix-socket " + j.Socket + " " + j.URL + "/api/v1/agents"
		}
		if token != "" {
			a.ui.line("token   %s   (shown only now)", token)
			curl += " -H 'X-Proxy-Token: '$TOKEN"
		}
		a.ui.note("%s", curl)
	}
	return j.URL
}

// explain turns what the SDK says into an answer for a caller, who is told
// nothing of the credential.
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
		return http.StatusGatewayTimeout, "PROXY_TIMEOUT", "the platform did not answer in time", 0
	default:
		return http.StatusBadGateway, "PROXY_UPSTREAM", "the platform cannot be reached", 0
	}
}
