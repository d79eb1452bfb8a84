package etcdstore

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// endpoint is the address of a member, read as etcd's client reads it.
type endpoint struct {
	text      string // without anything that may be a password
	scheme    string // empty for an address such as "etcd-0:2379"
	encrypted bool
	local     bool // no other machine can read what is sent to it
}

// parseEndpoint returns the endpoint, and why it cannot be used if there is a reason.
// The endpoint and the reason do not show user information, not even that of a URL that
// does not parse.
func parseEndpoint(raw string) (e endpoint, problem string) {
	const hint = "; write it like https://etcd-0:2379"
	e = endpoint{text: "invalid endpoint"}
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return e, "has white space, control characters, or non-ASCII characters" + hint
	}
	for _, scheme := range []string{"unix", "unixs"} {
		if strings.HasPrefix(raw, scheme+":") {
			if e.text = scheme + ":[hidden]"; !strings.Contains(raw, "@") { // which may be a password's
				e.text = raw
			}
			e.scheme, e.encrypted, e.local = scheme, scheme == "unixs", true
			return e, ""
		}
	}
	if strings.Contains(raw, "@") {
		return e, "has user information, which etcd's client does not use; set Username and Password"
	}
	text := raw
	if !strings.Contains(raw, "://") {
		text = "//" + raw
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return e, "is not a valid URL" + hint
	}
	if u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return e, "must have only a scheme, a host, and a port" + hint
	}
	e = endpoint{text: u.Host, scheme: u.Scheme, encrypted: u.Scheme == "https", local: isLoopback(strings.ToLower(u.Hostname()))}
	switch e.scheme {
	case "":
	case "http", "https":
		e.text = e.scheme + "://" + u.Host
	default:
		return endpoint{text: "invalid endpoint"}, "has an unknown scheme" + hint
	}
	return e, ""
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

// checkEndpoints refuses endpoints that would send a secret unencrypted.
func (c Config) checkEndpoints() error {
	if len(c.Endpoints) == 0 {
		return invalid("Open", "there are no endpoints")
	}
	has := ""
	switch {
	case c.Password != "":
		has = "a password"
	case c.TLS != nil:
		has = "a TLS configuration"
	}
	var first endpoint
	for i, raw := range c.Endpoints {
		e, problem := parseEndpoint(raw)
		if i == 0 {
			first = e
		}
		switch {
		case problem != "":
		case has != "" && e.scheme == "":
			problem = "has no scheme, but the configuration has " + has + "; write it like https://etcd-0:2379"
		case has != "" && !e.encrypted && !e.local:
			problem = "is not encrypted, but the configuration has " + has + "; use https"
		case e.encrypted != first.encrypted:
			problem = fmt.Sprintf("and %s differ in encryption, but etcd's client uses that of the first endpoint for all; "+
				"use https for all", first.text)
		}
		if problem != "" {
			return invalid("Open", fmt.Sprintf("endpoint %d of %d (%s) %s", i+1, len(c.Endpoints), e.text, problem))
		}
	}
	return nil
}
