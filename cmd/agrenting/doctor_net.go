package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go"
)

// Values up to these bounds cause no warning.
const (
	skewTolerated = 30 * time.Second
	certificateOK = 14 * 24 * time.Hour
	// recommendedAge is from the platform documentation ("Authentication").
	recommendedAge = 90 * 24 * time.Hour
)

// connection requests the health of the platform, without a credential.
func (e *examination) connection() bool {
	if e.codes["url"] != 0 {
		e.note("connection", checkSkip, "no valid URL", "")
		return false
	}
	// The measured request is not retried.
	client, err := e.app.anonymous(agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1, RenewalWait: -1}))
	if err != nil {
		if e.codes["configuration"] == 0 {
			e.fail("connection", err)
		}
		return false
	}
	defer client.Close()
	j := &jsonConnection{}
	var wrote, first atomic.Int64 // written by goroutines of the transport
	start := time.Now()
	ctx := httptrace.WithClientTrace(e.app.ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			j.Address = info.Conn.RemoteAddr().String()
		},
		WroteRequest:         func(httptrace.WroteRequestInfo) { wrote.Store(time.Now().UnixNano()) },
		GotFirstResponseByte: func() { first.Store(time.Now().UnixNano()) },
	})
	resp, err := e.health(ctx, client)
	if err != nil {
		e.fail("connection", e.proxyFailure(err))
		return false
	}
	e.report.Connection = j
	j.Milliseconds = float64(time.Since(start).Microseconds()) / 1000
	j.Protocol = resp.proto
	detail := fmt.Sprintf("%s, %s in %.0f ms", j.Address, j.Protocol, j.Milliseconds)
	if p := e.viaProxy(); p != "" {
		detail += ", through the proxy of " + p
	}
	e.answered(detail, resp)
	e.tls(j, resp.tls)
	e.clock(j, resp, wrote.Load(), first.Load())
	return true
}

// answered notes whether the response is the platform's.
func (e *examination) answered(detail string, resp *healthAnswer) {
	odd := func(text, hint string) {
		e.note("connection", checkWarn, detail+"; "+text+" to GET "+healthPath, hint)
	}
	switch {
	case resp.status >= http.StatusInternalServerError:
		e.codes["connection"] = codeFailure
		e.note("connection", checkFail, fmt.Sprintf("%s; it returns %d", detail, resp.status), "the platform has a problem; try again later")
	case resp.status >= 300 && resp.status < 400:
		odd(fmt.Sprintf("it returns %d, a redirect to another place,", resp.status),
			"set --url to the platform's own URL; if a network or proxy asks you to log in, do that first")
	case !resp.json:
		odd(fmt.Sprintf("it returns %d %s", resp.status, resp.kind), strangerHint(e.report.URL, resp.status))
	case resp.status == http.StatusNotFound:
		odd("it returns 404", "check the path of "+e.report.URL+": use the platform's URL without /api/v1, such as "+agrenting.DefaultBaseURL)
	case resp.status >= http.StatusBadRequest:
		odd(fmt.Sprintf("it returns %d", resp.status), strangerHint(e.report.URL, resp.status))
	default:
		e.note("connection", checkOK, detail, "")
	}
}

const healthPath = "/api/v1/health"

type healthAnswer struct {
	status      int
	json        bool
	kind        string // the media type of its body
	proto, date string
	stored      bool // in a cache
	tls         *tls.ConnectionState
}

// health makes the call. It does not follow redirects.
func (e *examination) health(ctx context.Context, client *agrenting.Client) (*healthAnswer, error) {
	if e.app.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.app.Timeout)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(e.report.URL, "/")+healthPath, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := client.Transport().RoundTrip(req)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil && e.app.ctx.Err() == nil {
		return nil, &cliError{
			code: codeNetwork, kind: "network", err: err,
			msg: fmt.Sprintf("no response within %v; see --timeout", e.app.Timeout), hint: networkHint(err),
		}
	}
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbe))
	_ = resp.Body.Close()
	e.app.sibling = linkedSibling(e.report.URL, resp.Header.Get("Location")+" "+string(body))
	return &healthAnswer{
		resp.StatusCode, err == nil && isJSON(resp.Header) && json.Valid(body), describedType(resp.Header),
		resp.Proto, resp.Header.Get("Date"), len(resp.Header.Values("Age")) > 0, resp.TLS,
	}, nil
}

// viaProxy returns the name of the variable that selects a proxy for requests.
func (e *examination) viaProxy() string {
	req, err := http.NewRequest(http.MethodGet, e.report.URL, http.NoBody) //nolint:noctx // it is not sent
	if err != nil {
		return ""
	}
	if u, err := agrenting.NewBaseTransport().Proxy(req); err != nil || u == nil {
		return ""
	}
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		if os.Getenv(name) != "" && strings.HasPrefix(strings.ToLower(name), req.URL.Scheme+"_") {
			return name
		}
	}
	return "the environment"
}

func (e *examination) tls(j *jsonConnection, state *tls.ConnectionState) {
	if state == nil {
		e.note("tls", checkSkip, "plain http, which is allowed only for this machine", "")
		return
	}
	j.TLSVersion = tls.VersionName(state.Version)
	detail := j.TLSVersion
	if len(state.PeerCertificates) > 0 {
		leaf := state.PeerCertificates[0]
		j.CertIssuer, j.CertExpires = visible(leaf.Issuer.String()), leaf.NotAfter
		detail += ", certificate of " + j.CertIssuer + " until " + when(leaf.NotAfter)
		if left := time.Until(leaf.NotAfter); left < certificateOK {
			e.note("tls", checkWarn, detail, "the owner must renew it within "+ago(left))
			return
		}
	}
	e.note("tls", checkOK, detail, "")
}

// clock compares the clocks. Date has whole seconds, so half of one is expected.
func (e *examination) clock(j *jsonConnection, resp *healthAnswer, wrote, first int64) {
	theirs, err := http.ParseTime(resp.date)
	switch {
	case resp.stored:
		e.note("clock", checkSkip, "the response comes from a cache, so its date may be old", "")
		return
	case err != nil || wrote == 0 || first == 0:
		e.note("clock", checkSkip, "the response has no date", "")
		return
	}
	ours := time.Unix(0, wrote+(first-wrote)/2)
	skew := theirs.Add(500 * time.Millisecond).Sub(ours)
	seconds := math.Round(skew.Seconds()*10) / 10
	if math.Abs(seconds) <= 1 {
		seconds = 0
	}
	j.ClockSkew = &seconds
	switch {
	case skew.Abs() <= time.Second:
		e.note("clock", checkOK, "equal to the platform's", "")
	case skew.Abs() <= skewTolerated:
		e.note("clock", checkOK, fmt.Sprintf("the platform's clock differs by %+.1f s", seconds), "")
	default:
		side := "ahead of"
		if skew < 0 {
			side = "behind"
		}
		e.note("clock", checkWarn, "the platform's clock is "+span(skew.Abs())+" "+side+" this one", "set the clock, for example by NTP")
	}
}

// span formats a difference in at most two units.
func span(d time.Duration) string {
	if d < 2*time.Minute {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	minutes := int(d.Round(time.Minute).Minutes())
	switch {
	case minutes < 60:
		return fmt.Sprintf("%d min", minutes)
	case minutes >= 48*60:
		return fmt.Sprintf("%d days", minutes/(24*60))
	case minutes%60 == 0:
		return fmt.Sprintf("%d h", minutes/60)
	default:
		return fmt.Sprintf("%d h %d min", minutes/60, minutes%60)
	}
}

// platform tries the credential.
func (e *examination) platform(client *agrenting.Client) {
	e.app.last, e.app.fixed = client, client.Status().Kind
	t := e.app.try(client)
	if rate := client.Status().Rate; rate.Known {
		e.report.Rate = &jsonRate{rate.Limit, rate.Remaining}
	}
	e.verdict(client, t)
	if r := e.report.Rate; r != nil {
		status, hint := checkOK, ""
		if r.Remaining*10 < r.Limit {
			status, hint = checkWarn, "send fewer requests, or use several agents: each has a separate limit"
		}
		e.note("rate limit", status, fmt.Sprintf("%d of %d requests left in this window", r.Remaining, r.Limit), hint)
	}
	if cred, err := client.Credential(e.app.ctx); t.err == nil && err == nil {
		if f := cred.Fingerprint(); f != e.report.Credential.Fingerprint {
			e.report.Credential.Fingerprint = f
			e.note("credential", checkOK, "the one in the store was rejected, and "+f+" was adopted instead", "")
		}
		e.age(client, cred)
	}
}

// verdict notes the result of trying the credential.
func (e *examination) verdict(client *agrenting.Client, t trial) {
	known := "recognizes the credential"
	user := client.Status().Kind == agrenting.KindUserToken
	agent := client.Status().AgentID
	switch {
	case t.err == nil && t.refusal == nil:
		e.note("platform", checkOK, known, "")
	case t.err == nil && user && agent == "" && about(t.refusal, "X-Agent-ID"):
		e.note("platform", checkOK, known, "")
		e.note("agent", checkSkip, "none specified; calls that act as an agent need --agent or "+varAgentID+" (agrenting agents mine lists yours)", "")
	case t.err == nil && user && agent == "" && errors.Is(t.refusal, agrenting.ErrForbidden):
		e.note("platform", checkOK, known+", but does not permit everything: "+textOf(t.refusal), "")
	case t.err == nil:
		c := e.app.classify(t.refusal)
		e.note("platform", checkWarn, known+", but refuses a simple call: "+c.msg,
			cmp.Or(e.typeHint(client), c.hint, "ask the owner of the account why the platform refuses it"))
	case errors.Is(t.err, agrenting.ErrNotFound) && !judged(t.err):
		e.note("platform", checkWarn, "does not say whether it recognizes the credential: "+e.app.classify(t.err).msg,
			"check that "+e.report.URL+" is the platform's URL (see --url)")
	default:
		e.refused(client, t.err)
	}
	if t.agent != nil {
		e.fail("agent", t.agent)
	}
}

// refused notes that the platform does not accept the credential.
func (e *examination) refused(client *agrenting.Client, err error) {
	if hint := e.typeHint(client); hint != "" && errors.Is(err, agrenting.ErrUnauthorized) {
		c := *e.app.classify(err)
		c.hint = hint
		err = &c
	}
	e.fail("platform", err)
}

// typeHint returns typedWrong for the credential of a client.
func (e *examination) typeHint(client *agrenting.Client) string {
	cred, err := client.Credential(e.app.ctx)
	if err != nil {
		return ""
	}
	return e.typedWrong(cred)
}

// judged reports whether probe classified the error.
func judged(err error) bool {
	_, ok := errors.AsType[*cliError](err)
	return ok
}

// age reports the age of the key, from the store or the platform's list of keys.
func (e *examination) age(client *agrenting.Client, cred agrenting.Credential) {
	created := e.storedAge()
	if agent := e.app.knownAgent(client); created.IsZero() && agent != "" && cred.Kind() == agrenting.KindAPIKey {
		created = e.listedAge(client, agent, cred)
	}
	if created.IsZero() {
		return
	}
	age := time.Since(created)
	days := math.Round(age.Hours()/24*10) / 10
	e.report.Credential.Created, e.report.Credential.AgeDays = created, &days
	if age > recommendedAge {
		e.note("age", checkWarn, ago(age)+"; the platform recommends a new key every 90 days", "agrenting keys rotate")
		return
	}
	e.note("age", checkOK, ago(age), "")
}

func (e *examination) storedAge() time.Time {
	key, err := e.app.stored()
	if err != nil {
		return noTime
	}
	return key.Created
}

// listedAge returns when the key was created, from the platform's list of keys. It returns the
// zero time if no single live key matches.
func (e *examination) listedAge(client *agrenting.Client, agent string, cred agrenting.Credential) time.Time {
	var keys []agrenting.Key
	for k, err := range client.Keys.List(e.app.ctx, agent) {
		if err != nil {
			return noTime
		}
		keys = append(keys, k)
	}
	if i := inUse(keys, cred); i >= 0 {
		return keys[i].Created
	}
	return noTime
}
