package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/ascii"
)

// trial is what the platform says to a credential.
type trial struct {
	// err is why it is not known to be good; nil when the platform knows it.
	err error
	// agent is why it may not act for the agent that was named, refusal any other
	// reason for which a good credential was turned away, such as a scope.
	agent, refusal error
}

// try tries the credential, by a cheap call that acts as the agent. Where that is
// refused, the same call without the agent tells on whose account.
func (a *app) try(client *agrenting.Client) trial {
	err := a.probe(client)
	id := client.Status().AgentID
	if id == "" || !refusesKnown(err) && !errors.Is(err, agrenting.ErrNotFound) {
		return trialOf(err)
	}
	cred, cerr := client.Credential(a.ctx)
	if cerr != nil {
		return trialOf(err)
	}
	other, cerr := a.withoutAgent().as(cred)
	if cerr != nil {
		return trialOf(err)
	}
	defer other.Close()
	bare := a.probe(other)
	if bare != nil && (!refusesKnown(bare) || sameRefusal(err, bare)) {
		return trialOf(err)
	}
	t := trialOf(bare)
	if about(bare, "X-Agent-ID") {
		t.refusal = nil // it only wants one to be named
	}
	named := varAgentID
	if a.Agent != "" {
		named = "--agent"
	}
	e := *a.classify(err)
	e.msg = "the platform does not let the credential act as the agent " + visible(id) + ": " + e.msg
	e.hint = "leave " + named + " away: an agent's key needs none"
	if cred.Kind() == agrenting.KindUserToken {
		e.hint = "agrenting agents mine lists yours; give the id of one by " + named
	}
	t.agent = &e
	return t
}

func trialOf(err error) trial {
	if refusesKnown(err) {
		return trial{refusal: err}
	}
	return trial{err: err}
}

// refusesKnown reports whether an answer refuses a call whose credential the
// platform knows. A stranger's does not, see probe.
func refusesKnown(err error) bool {
	if judged(err) {
		return false
	}
	api, ok := errors.AsType[*agrenting.APIError](err)
	if !ok {
		return false
	}
	switch api.StatusCode {
	case http.StatusPaymentRequired, http.StatusForbidden, http.StatusConflict, http.StatusUnprocessableEntity:
		return true
	default:
		return false
	}
}

func sameRefusal(one, other error) bool {
	a, ok := errors.AsType[*agrenting.APIError](one)
	b, both := errors.AsType[*agrenting.APIError](other)
	return ok && both && a.StatusCode == b.StatusCode && a.Code == b.Code && a.Message == b.Message
}

// about reports whether a refusal is about a field.
func about(err error, field string) bool {
	api, ok := errors.AsType[*agrenting.APIError](err)
	return ok && (ascii.EqualFold(api.Field, field) || strings.Contains(api.Message, field))
}

// maxProbe bounds what is read of the answer to a probe.
const maxProbe = 8 << 20

// bounded is a buffer that takes no more than maxProbe bytes.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxProbe {
		return 0, fmt.Errorf("%w: it has more than %d MiB", agrenting.ErrMalformedResponse, maxProbe>>20)
	}
	return b.Buffer.Write(p)
}

// probe makes the call that shows whether the platform knows the credential. It
// has to be the platform that answers: an answer of a captive portal or of a
// firewall says nothing about the credential, whatever its status is.
func (a *app) probe(client *agrenting.Client) error {
	var body bounded
	resp, err := client.Do(a.ctx, http.MethodGet, probePath, nil, &body)
	a.sibling = cmp.Or(a.sibling, linkedSibling(client.BaseURL(), body.String()))
	api, refused := errors.AsType[*agrenting.APIError](err)
	switch {
	case refused && !fromPlatform(resp, api):
		return a.stranger(client, resp, err)
	case errors.Is(err, agrenting.ErrRouteNotFound):
		return a.hint(err, agrenting.ErrRouteNotFound, "check the path of the URL "+client.BaseURL()+
			": --url and "+varURL+" take the platform's without /api/v1, such as "+agrenting.DefaultBaseURL)
	case errors.Is(err, agrenting.ErrForeignOrigin):
		return a.hint(err, agrenting.ErrForeignOrigin, "another server redirects, such as the login page of a network or of a proxy: "+
			"log in there, or check --url")
	case err != nil:
		return err
	case !isEnvelope(body.Bytes()):
		return a.stranger(client, resp, nil)
	}
	return nil
}

const probePath = "/api/v1/hirings/pending"

// fromPlatform reports whether a refusal has the form of the platform's. Those
// that say nothing about the credential, or too little to tell, pass.
func fromPlatform(resp *agrenting.Response, e *agrenting.APIError) bool {
	switch {
	case e.StatusCode == http.StatusTooManyRequests, e.StatusCode >= http.StatusInternalServerError:
		return true
	case e.StatusCode == http.StatusUnauthorized:
		return mediaType(resp.Header) != "text/html"
	default:
		return isJSON(resp.Header) && (e.Code != "" || e.Message != "")
	}
}

// stranger says that it is not the platform that answers. err is the answer, nil
// for a success.
func (a *app) stranger(client *agrenting.Client, resp *agrenting.Response, err error) error {
	e := &cliError{code: codeFailure, err: agrenting.ErrMalformedResponse}
	if err != nil {
		e.code, e.err = a.classify(err).code, err
	}
	e.kind = "malformed_response"
	e.msg = fmt.Sprintf("GET %s: %d %s, which is not an answer of the platform", probePath, resp.StatusCode, describedType(resp.Header))
	e.hint = strangerHint(client.BaseURL(), resp.StatusCode)
	return e
}

func strangerHint(base string, status int) string {
	hint := "is " + base + " the platform's URL (see --url)? Or a portal, proxy or firewall on the way answers in its place"
	if strings.HasPrefix(base, "http:") && status == http.StatusBadRequest {
		hint = "if TLS is spoken there, write https: in the URL; otherwise: " + hint
	}
	return hint
}

func mediaType(h http.Header) string {
	t, _, _ := mime.ParseMediaType(h.Get("Content-Type")) // "" if it cannot be read
	return t
}

// describedType is the type of an answer in words.
func describedType(h http.Header) string {
	if t := mediaType(h); t != "" {
		return "with " + visible(t)
	}
	return "with no type of content"
}

func isJSON(h http.Header) bool {
	t := mediaType(h)
	return t == "application/json" || strings.HasSuffix(t, "+json")
}

// isEnvelope reports whether a success is the platform's.
func isEnvelope(body []byte) bool {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return false
	}
	_, data := members["data"]
	_, meta := members["meta"]
	return data || meta
}
