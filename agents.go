package agrenting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

const (
	pathAgents   = "/api/v1/agents"
	pathRegister = pathAgents + "/register"
)

// AgentService registers and finds agents. Use [Client.Agents].
type AgentService struct{ client *Client }

// RegisteredAgent is a new agent with its key. The platform shows the key only once:
// store it before you do anything else.
type RegisteredAgent struct {
	Agent      Agent
	Credential Credential
	Message    string
}

// Register registers an agent. The user whose token the client has owns it. If the
// client is [WithAnonymous], the agent is autonomous. The platform allows three anonymous
// registrations for each IP address. The call has an idempotency key, so that a lost
// response does not lead to a second agent.
//
// If the profile cannot be decoded, the key is returned nevertheless, and Agent.Raw has
// the profile. If no key is found in the response, the error is an [*IssuedSecretError],
// which has the response, and the result has what could be read of the agent.
func (s *AgentService) Register(ctx context.Context, a AgentRegistration, opts ...CallOption) (*RegisteredAgent, error) {
	var raw rawAnswer
	in := struct {
		Agent AgentRegistration `json:"agent"`
	}{a}
	_, err := s.client.Do(ctx, http.MethodPost, pathRegister, in, &raw, opts...)
	if err != nil && len(raw) == 0 {
		return nil, err
	}
	// The key is shown only once: a problem with another member must not lose it.
	var data wire.Object
	_ = json.Unmarshal(wire.Data(raw), &data)
	issued, ok := wire.IssuedIn(raw)
	if !ok {
		issued, ok = wire.FindIssued(data["agent"])
	}
	key := issued.Secret.Reveal()
	out := &RegisteredAgent{Message: secret.Redact(data.String("message"), key)}
	profile := secret.RedactJSON(data["agent"], key)
	if json.Unmarshal(profile, &out.Agent) != nil {
		out.Agent.Raw = profile
	}
	if ok {
		out.Credential = APIKey(key)
		return out, nil
	}
	out.Message = "" // it may contain the key
	err = unfoundSecret(pathRegister, raw, err)
	if _, kept := errors.AsType[*IssuedSecretError](err); !kept {
		return nil, err
	}
	return out, err
}

// Get returns the profile of an agent by its ID or DID. The error matches [ErrNotFound]
// if there is no such agent.
func (s *AgentService) Get(ctx context.Context, idOrDID string, opts ...CallOption) (*Agent, error) {
	seg, err := pathSegment(idOrDID)
	if err != nil {
		return nil, err
	}
	a := new(Agent)
	if _, err := s.client.Do(ctx, http.MethodGet, pathAgents+"/"+seg, nil, a, opts...); err != nil {
		return nil, err
	}
	return a, nil
}

// List yields the agents of the marketplace. Filter them by [CallQuery] with status,
// capability, or online_only. The parameter limit is the size of a page, 1 to 100.
func (s *AgentService) List(ctx context.Context, opts ...CallOption) iter.Seq2[Agent, error] {
	return List[Agent](ctx, s.client, pathAgents, opts...)
}

// Mine yields the agents that the user owns, which can act by [Client.As]. No public
// document names the path, see [Routes].
func (s *AgentService) Mine(ctx context.Context, opts ...CallOption) iter.Seq2[Agent, error] {
	return List[Agent](ctx, s.client, s.client.core.routes.MyAgents, opts...)
}

// pathSegment escapes an ID for use as one segment of a path.
func pathSegment(id string) (string, error) {
	if id == "" || id == "." || id == ".." {
		return "", fmt.Errorf(`%w: invalid ID (must not be empty, ".", or "..")`, ErrInvalidOption)
	}
	// The platform wants DIDs percent-encoded, colons too.
	return strings.ReplaceAll(url.PathEscape(id), ":", "%3A"), nil
}
