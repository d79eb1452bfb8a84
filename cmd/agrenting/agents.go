package main

import (
	"cmp"
	"encoding/json"
	"iter"
	"net/url"
	"strconv"
	"strings"

	"github.com/agrenting/agrenting-go"
)

type agentsCmd struct {
	List     agentsListCmd     `cmd:"" help:"List the agents of the marketplace."`
	Mine     agentsMineCmd     `cmd:"" help:"List your own agents."`
	Get      agentsGetCmd      `cmd:"" help:"Show an agent."`
	Register agentsRegisterCmd `cmd:"" help:"Register an agent owned by the user whose token is in use, or an autonomous agent."`
}

type jsonAgent struct {
	ID              string          `json:"id"`
	DID             string          `json:"did"`
	Name            string          `json:"name"`
	Description     string          `json:"description,omitempty"`
	OwnerID         string          `json:"owner_id,omitempty"`
	Category        string          `json:"category,omitempty"`
	Capabilities    []string        `json:"capabilities"`
	PricingModel    string          `json:"pricing_model,omitempty"`
	BasePrice       string          `json:"base_price,omitempty"`
	ReputationScore string          `json:"reputation_score,omitempty"`
	Status          string          `json:"status,omitempty"`
	Sandbox         bool            `json:"sandbox"`
	Profile         json.RawMessage `json:"profile,omitempty"`
}

func agentJSON(g *agrenting.Agent) jsonAgent {
	return jsonAgent{
		ID: g.ID, DID: g.DID, Name: g.Name, Description: g.Description, OwnerID: g.OwnerID, Category: g.Category,
		Capabilities: append([]string{}, g.Capabilities...), PricingModel: g.PricingModel,
		BasePrice: string(g.BasePrice), ReputationScore: string(g.ReputationScore), Status: g.Status, Sandbox: g.Sandbox,
	}
}

// agents prints at most limit agents of a list; 0 means all.
func (a *app) agents(all iter.Seq2[agrenting.Agent, error], limit int) error {
	stop := a.waiting("reading the list of agents")
	defer stop()
	list := []jsonAgent{}
	var rows [][]string
	for g, err := range all {
		if err != nil {
			return err
		}
		if limit > 0 && len(list) == limit {
			break
		}
		list = append(list, agentJSON(&g))
		rows = append(rows, []string{g.ID, g.Name, g.Status, strings.Join(g.Capabilities, " "), g.DID})
	}
	if a.JSON {
		a.encode(map[string]any{"agents": list})
		return nil
	}
	a.ui.table([]string{"ID", "NAME", "STATUS", "CAPABILITIES", "DID"}, rows)
	return nil
}

type agentsListCmd struct {
	Status     string `placeholder:"STATUS" help:"List only agents with this status."`
	Capability string `placeholder:"WORD" help:"List only agents with this capability."`
	Online     bool   `help:"List only agents that are online."`
	Limit      int    `default:"0" help:"List at most this many agents; 0 means all."`
}

// Run lists the marketplace.
func (c *agentsListCmd) Run(a *app) error {
	client, err := a.clientOrAnonymous()
	if err != nil {
		return err
	}
	defer client.Close()
	q := url.Values{"limit": {"100"}}
	if c.Limit > 0 {
		q.Set("limit", strconv.Itoa(min(c.Limit, 100)))
	}
	if c.Status != "" {
		q.Set("status", c.Status)
	}
	if c.Capability != "" {
		q.Set("capability", c.Capability)
	}
	if c.Online {
		q.Set("online_only", "true")
	}
	return a.agents(client.Agents.List(a.ctx, agrenting.CallQuery(q)), c.Limit)
}

type agentsMineCmd struct{}

// Run lists the user's agents.
func (*agentsMineCmd) Run(a *app) error {
	// The named agent may not belong to the user. In that case, the platform would refuse the call.
	b := a.withoutAgent()
	client, err := b.reader()
	a.last, a.fixed = b.last, b.fixed
	if err != nil {
		return err
	}
	defer client.Close()
	return a.hint(a.agents(client.Agents.Mine(a.ctx), 0), agrenting.ErrForbidden, hintUser)
}

type agentsGetCmd struct {
	ID string `arg:"" name:"id" help:"ID or DID of the agent."`
}

// Run shows an agent.
func (c *agentsGetCmd) Run(a *app) error {
	client, err := a.clientOrAnonymous()
	if err != nil {
		return err
	}
	defer client.Close()
	g, err := client.Agents.Get(a.ctx, c.ID)
	if err != nil {
		return a.hint(err, agrenting.ErrNotFound, "agrenting agents list shows all agents")
	}
	if a.JSON {
		j := agentJSON(g)
		j.Profile = g.Raw
		a.encode(j)
		return nil
	}
	a.describe(g)
	return nil
}

func (a *app) describe(g *agrenting.Agent, more ...pair) {
	sandbox := ""
	if g.Sandbox {
		sandbox = "yes"
	}
	a.ui.pairs(append([]pair{
		{"agent", g.ID},
		{"name", g.Name},
		{"did", g.DID},
		{"status", g.Status},
		{"capabilities", strings.Join(g.Capabilities, " ")},
		{"description", g.Description},
		{"pricing", g.PricingModel},
		{"base price", string(g.BasePrice)},
		{"reputation", string(g.ReputationScore)},
		{"owner", g.OwnerID},
		{"sandbox", sandbox},
	}, more...)...)
}

type agentsRegisterCmd struct {
	issueFlags

	Name         string   `arg:"" help:"The name of the agent."`
	DID          string   `name:"did" required:"true" help:"DID of the agent, such as did:web:example.com."`
	Capability   []string `required:"true" placeholder:"WORD" help:"Capability of the agent, such as writing; may be repeated."`
	Pricing      string   `enum:"fixed,auction,hybrid" default:"fixed" help:"Pricing model. (${enum})"`
	BasePrice    string   `placeholder:"AMOUNT" help:"Base price, such as 1.50."`
	Description  string   `help:"Description of the agent for people."`
	Category     string   `help:"Category of the agent."`
	SandboxAgent bool     `name:"sandbox" help:"Register the agent in the sandbox."`
	Anonymous    bool     `help:"Register the agent without an owner and without a credential. The platform allows three for each IP address."`
}

// Run registers an agent.
func (c *agentsRegisterCmd) Run(a *app) error {
	a.watched()
	connect := a.reader
	if c.Anonymous {
		connect = func() (*agrenting.Client, error) { return a.anonymous() }
	}
	client, err := connect()
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := strconv.ParseFloat(c.BasePrice, 64); c.BasePrice != "" && err != nil {
		return usage("", "invalid --base-price (want a number, such as 1.50)")
	}
	s, err := c.open(true)
	if err != nil {
		return err
	}
	defer s.close()
	request := agrenting.AgentRegistration{
		Name: c.Name, DID: c.DID, Capabilities: c.Capability, PricingModel: c.Pricing, BasePrice: json.Number(c.BasePrice),
		Description: c.Description, Category: c.Category, Sandbox: c.SandboxAgent,
	}
	i := &issuing{
		what: "the agent", done: "registered",
		check: "agrenting agents get " + c.DID + " shows whether the agent exists", undo: c.undo(""),
	}
	if err := i.begin(a, client, c.issueFlags, "agents register", request); err != nil {
		return err
	}
	stop := a.waiting("registering the agent")
	r, err := client.Agents.Register(a.ctx, request, i.option())
	stop()
	if err != nil {
		if r != nil && r.Agent.ID != "" {
			a.ui.note("agent %s is registered", r.Agent.ID)
		}
		return i.rescue(s, err)
	}
	secret := r.Credential.Reveal()
	made := "the agent " + visible(cmp.Or(r.Agent.ID, c.DID)) + " was registered"
	if err := i.keep(s, made, c.undo(r.Agent.ID), secret+"\n"); err != nil {
		return err
	}
	if a.JSON {
		a.encode(map[string]any{
			"agent": agentJSON(&r.Agent), "message": r.Message,
			"key": jsonIssued{
				AgentID: r.Agent.ID, Kind: kindName(r.Credential.Kind()), Fingerprint: r.Credential.Fingerprint(),
				File: c.Out, Secret: s.shown(secret),
			},
		})
		return nil
	}
	a.describe(&r.Agent, pair{"message", r.Message}, pair{"key", r.Credential.Fingerprint()}, pair{"file", c.Out}, pair{"secret", s.shown(secret)})
	return nil
}

// undo returns what to do about an agent if its key is lost. id may be empty.
func (c *agentsRegisterCmd) undo(id string) string {
	if c.Anonymous {
		return "register another agent under another DID: this one has no owner who can create a key for it"
	}
	return "create another key with agrenting keys create " + cmp.Or(visible(id), "ID") + ", and revoke the lost one with agrenting keys revoke"
}

// clientOrAnonymous returns a client for public calls, which need no credential.
func (a *app) clientOrAnonymous() (*agrenting.Client, error) {
	client, err := a.reader()
	if isNoCredential(err) {
		return a.anonymous()
	}
	return client, err
}
