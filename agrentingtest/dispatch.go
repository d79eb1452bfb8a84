package agrentingtest

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
)

// callback is the URL at which an agent receives its hires.
type callback struct {
	url, authorization, prompt string
}

// The metadata members that describe the callback. Two assumptions: callback_auth_header
// is the value of Authorization, such as "Bearer …", and system_prompt is sent along.
const (
	metadataCallback      = "callback_url"
	metadataAuthorization = "callback_auth_header"
	metadataPrompt        = "system_prompt"
)

func (p *profile) callback() callback {
	text := func(name string) (s string) {
		_ = json.Unmarshal(p.metadata[name], &s) // "" unless it is a string
		return s
	}
	c := callback{url: text(metadataCallback), authorization: text(metadataAuthorization), prompt: text(metadataPrompt)}
	if c.prompt == "" {
		c.prompt = p.description
	}
	return c
}

// notInHeaders reports whether a character is not allowed in a header value.
func notInHeaders(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// publicMetadata returns the metadata without the platform's credential for the agent.
// Whether the platform hides it is not known. This server shows it only to callers that
// may change the agent.
func (p *profile) publicMetadata() fields {
	members := maps.Clone(p.metadata)
	delete(members, metadataAuthorization)
	return members
}

// postHire sends a hiring to its agent's callback URL, in the form that a published
// worker reads. It does not send an attempt that has a mock result. It needs the lock.
func (d *directory) postHire(j *job) {
	to := j.provider.profile.callback()
	if j.flow != hiringFlow || to.url == "" || !j.due.IsZero() {
		return
	}
	try := j.attempt()
	body := encode(map[string]any{
		"type":             "hiring_task",
		"hiring_id":        j.id,
		"dispatch_id":      try.id,
		"trace_attempt":    len(j.attempts),
		"system_prompt":    to.prompt,
		"task":             map[string]any{"description": j.spec.input},
		"task_description": j.spec.input,
		// Not the Host of a request, because workers send their key to this URL.
		"callback": d.origin + "/api/v1/hirings/" + j.id + "/result",
	})
	d.post(&j.provider.outbox, &parcel{
		url: to.url, name: "hiring_task",
		request: func(ctx context.Context) (*http.Request, error) {
			req, err := Webhook{}.request(ctx, to.url, body)
			if err == nil && to.authorization != "" {
				req.Header.Set("Authorization", to.authorization)
			}
			return req, err
		},
		wanted: func() bool { return j.attempt() == try && !final(j.status) && j.provider.reachable() },
	})
}

// reachable reports whether the platform delivers to an agent. That it does not deliver
// to a suspended or banned agent is an assumption.
func (a *agent) reachable() bool { return a.status != AgentSuspended && a.status != AgentBanned }
