package mcptest

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// Team is a group of agents that is hired together, such as Team{Name: "Writers",
// Members: members}. Most programs only set Name and Members.
type Team struct {
	ID          string       `json:"id"` // a random UUID if empty
	Name        string       `json:"name"`
	Description string       `json:"description,omitempty"`
	Members     []TeamMember `json:"members"`
}

// TeamMember is an agent of a [Team], such as TeamMember{AgentDID:
// "did:agrenting:scribe", Capability: "writing", Price: "8.50"}. Most programs only set
// these three fields.
type TeamMember struct {
	AgentDID   string `json:"agent_did"` // the DID or the ID
	Capability string `json:"capability"`
	Price      string `json:"price,omitempty"` // in USD, such as "8.50"
	Note       string `json:"note,omitempty"`
}

// SaveTeam adds a team to the list of list_saved_teams for a user. It returns the team
// with its ID. No source documents how users save teams.
func (e *Endpoints) SaveTeam(userID string, t Team) Team {
	t = t.ready()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.saved[userID] = append(e.saved[userID], t)
	return t
}

// ListTeam adds a team to the list of list_team_listings for all callers. It returns the
// team with its ID.
func (e *Endpoints) ListTeam(t Team) Team {
	t = t.ready()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.listings = append(e.listings, t)
	return t
}

func (t Team) ready() Team {
	t.ID = cmp.Or(t.ID, newUUID())
	t.Members = append([]TeamMember{}, t.Members...)
	return t
}

// newUUID returns a random (version 4) UUID.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// addTeamTools adds the tools for teams. The platform calls a hired team a swarm.
func (e *Endpoints) addTeamTools(s *mcp.Server) {
	addTool(e, s, &mcp.Tool{
		Name:        "hire_swarm",
		Description: "Hire several agents together. If one cannot be hired, none is.",
	}, hireSwarm)
	addTool(e, s, &mcp.Tool{
		Name: "get_swarm_status", Annotations: readOnly,
		Description: "Get a swarm, and the status of each of its hirings.",
	}, getSwarmStatus)
	addTool(e, s, &mcp.Tool{
		Name:        "cancel_swarm",
		Description: "Cancel the hirings of a swarm that have not ended.",
	}, cancelSwarm)
	addTool(e, s, &mcp.Tool{
		Name: "suggest_team", Annotations: readOnly,
		Description: "Suggest an agent for each capability.",
	}, suggestTeam)
	addTool(e, s, &mcp.Tool{
		Name: "list_saved_teams", Annotations: readOnly,
		Description: "List the teams that you have saved.",
	}, listSavedTeams)
	addTool(e, s, &mcp.Tool{
		Name: "list_team_listings", Annotations: readOnly,
		Description: "List the teams that are offered for hire.",
	}, listTeamListings)
}

// swarm is a hired team. It does not change after it is hired: its hirings have the
// status.
type swarm struct {
	id, name, account string
	hirings           []string
	created           time.Time
	fingerprint       [sha256.Size]byte // hash of the arguments
}

type swarmInput struct {
	Name           string        `json:"name,omitempty"`
	Members        []swarmMember `json:"members" jsonschema:"1 to 10 agents"`
	IdempotencyKey string        `json:"client_idempotency_key,omitempty" jsonschema:"the same key with the same arguments hires only once"`
}

type swarmMember struct {
	AgentDID   string `json:"agent_did" jsonschema:"the DID or ID of the agent"`
	Capability string `json:"capability_requested" jsonschema:"what the agent is to use, such as writing"`
	Task       string `json:"task_description" jsonschema:"what the agent is to do"`
	Price      string `json:"price" jsonschema:"in USD, such as 8.50"`
	Note       string `json:"note,omitempty" jsonschema:"a note to the agent, at most 500 characters"`
}

const (
	maxMembers = 10
	maxNote    = 500 // documented limit
)

// hireSwarm hires one member after the other. If one is refused, it cancels the hirings
// of the others.
func hireSwarm(ctx context.Context, c *call, in swarmInput) (any, error) {
	if n := len(in.Members); n == 0 || n > maxMembers {
		return nil, invalid("members must have 1 to %d agents", maxMembers)
	}
	for i, m := range in.Members {
		if len([]rune(m.Note)) > maxNote {
			return nil, invalid("members[%d].note must have at most %d characters", i, maxNote)
		}
	}
	arguments, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	select {
	case c.e.recruiting <- struct{}{}:
		defer func() { <-c.e.recruiting }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	made := &swarm{
		id: newUUID(), name: in.Name, account: account(c.who), created: time.Now(), fingerprint: sha256.Sum256(arguments),
	}
	key := made.account + " " + in.IdempotencyKey
	if in.IdempotencyKey != "" {
		c.e.mu.Lock()
		known := c.e.keyed[key]
		c.e.mu.Unlock()
		switch {
		case known != nil && known.fingerprint == made.fingerprint:
			return c.readSwarm(ctx, known)
		case known != nil:
			return nil, &refusal{
				http.StatusConflict, agrentingtest.CodeIdempotencyConflict,
				"client_idempotency_key was used with another request",
			}
		}
	}
	var states []map[string]any
	for slot, m := range in.Members {
		hiring, err := c.hireMember(ctx, made, slot, m)
		if err != nil {
			return nil, c.giveUp(ctx, made, slot, err)
		}
		made.add(hiring)
		states = append(states, hiring)
	}
	c.e.mu.Lock()
	c.e.swarms[made.id] = made
	if in.IdempotencyKey != "" {
		c.e.keyed[key] = made
	}
	c.e.mu.Unlock()
	return made.render(states), nil
}

// hireMember hires a member. If the response is lost, the member may have been hired.
// Therefore hireMember resends the request with the same idempotency key, so that giveUp
// can cancel the hiring.
func (c *call) hireMember(ctx context.Context, s *swarm, slot int, m swarmMember) (map[string]any, error) {
	body := hireBody{
		Capability: m.Capability, Task: m.Task, Price: m.Price, ClientMessage: m.Note,
		IdempotencyKey: fmt.Sprintf("%s/%d", s.id, slot),
	}
	hire := func(ctx context.Context) (map[string]any, error) {
		var hired struct {
			Hiring map[string]any `json:"hiring"`
		}
		err := c.ask(ctx, http.MethodPost, hirePath(m.AgentDID), nil, body, &hired)
		return hired.Hiring, err
	}
	hiring, err := hire(ctx)
	if err == nil {
		return hiring, nil
	}
	if f, ok := errors.AsType[*refusal](err); ok && f.status >= 400 && f.status < 500 {
		return nil, err
	}
	hiring, again := hire(context.WithoutCancel(ctx))
	if again != nil {
		return nil, fmt.Errorf("%w. The agent may have been hired: see list_my_hirings", err)
	}
	s.add(hiring)
	return nil, err
}

func (s *swarm) add(hiring map[string]any) {
	id, _ := hiring["id"].(string) // the hiring has an ID
	s.hirings = append(s.hirings, id)
}

// giveUp cancels the hirings of a swarm after its next member was refused, even if
// the caller has left.
func (c *call) giveUp(ctx context.Context, s *swarm, slot int, cause error) error {
	var left []string
	for _, id := range s.hirings {
		if _, err := c.send(context.WithoutCancel(ctx), http.MethodPost, hiringPath(id, "/cancel"), nil, nil); err != nil {
			left = append(left, id)
		}
	}
	err := fmt.Errorf("members[%d]: %w", slot, cause)
	if len(left) > 0 {
		err = fmt.Errorf("%w. These hirings could not be canceled: %s", err, strings.Join(left, ", "))
	}
	return err
}

type swarmIDInput struct {
	SwarmID string `json:"swarm_id"`
}

// swarm returns a swarm of the caller.
func (c *call) swarm(id string) (*swarm, error) {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	s := c.e.swarms[id]
	if s == nil || s.account != account(c.who) {
		return nil, notFound("swarm")
	}
	return s, nil
}

func getSwarmStatus(ctx context.Context, c *call, in swarmIDInput) (any, error) {
	s, err := c.swarm(in.SwarmID)
	if err != nil {
		return nil, err
	}
	return c.readSwarm(ctx, s)
}

// cancelSwarm cancels the hirings that have not ended. A hiring that ends in the meantime
// is left unchanged.
func cancelSwarm(ctx context.Context, c *call, in swarmIDInput) (any, error) {
	s, err := c.swarm(in.SwarmID)
	if err != nil {
		return nil, err
	}
	states := make([]map[string]any, len(s.hirings))
	for i, id := range s.hirings {
		err := c.ask(ctx, http.MethodPost, hiringPath(id, "/cancel"), nil, nil, &states[i])
		if f, ok := errors.AsType[*refusal](err); ok && f.status == http.StatusUnprocessableEntity { // the hiring has ended
			err = c.ask(ctx, http.MethodGet, hiringPath(id, ""), nil, nil, &states[i])
		}
		if err != nil {
			return nil, err
		}
	}
	return s.render(states), nil
}

func (c *call) readSwarm(ctx context.Context, s *swarm) (any, error) {
	states := make([]map[string]any, len(s.hirings))
	_, err := readHirings(ctx, c, s.hirings, states)
	return s.render(states), err
}

// render derives the status of the swarm from the statuses of its hirings, which is an
// assumption.
func (s *swarm) render(states []map[string]any) any {
	all := func(status string) bool {
		return !slices.ContainsFunc(states, func(h map[string]any) bool { return h["status"] != status })
	}
	status := "failed" // counts of the hirings that have ended, and of those that ended without a result
	switch {
	case slices.ContainsFunc(states, func(h map[string]any) bool { return !final(h) }):
		status = "in_progress"
	case all("completed"):
		status = "completed"
	case all("cancelled"):
		status = "cancelled"
	}
	return map[string]any{
		"swarm_id": s.id, "name": s.name, "status": status, "hirings": states,
		"created_at": s.created.UTC().Format(time.RFC3339Nano),
	}
}

type suggestInput struct {
	Capabilities []string `json:"capabilities" jsonschema:"what the members must be able to do, 1 to 10"`
	SortBy       string   `json:"sort_by,omitempty" jsonschema:"what makes an agent the best: reputation (the default) or price"`
	MaxPrice     float64  `json:"max_price,omitempty" jsonschema:"of each member, in USD"`
}

// suggestTeam chooses the first agent for each capability in the order of discovery.
func suggestTeam(ctx context.Context, c *call, in suggestInput) (any, error) {
	if n := len(in.Capabilities); n == 0 || n > maxMembers {
		return nil, invalid("capabilities must name 1 to %d capabilities", maxMembers)
	}
	members, missing := []TeamMember{}, []string{}
	total := new(big.Rat)
	for _, capability := range in.Capabilities {
		var found []struct {
			DID   string `json:"did"`
			Price string `json:"base_price"`
		}
		err := c.ask(ctx, http.MethodGet, "/api/v1/agents/discover", query("capability", capability,
			"sort_by", cmp.Or(in.SortBy, "reputation"), "max_price", number(in.MaxPrice), "limit", "1"), nil, &found)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			missing = append(missing, capability)
			continue
		}
		members = append(members, TeamMember{AgentDID: found[0].DID, Capability: capability, Price: found[0].Price})
		if price, ok := new(big.Rat).SetString(found[0].Price); ok {
			total.Add(total, price)
		}
	}
	return map[string]any{"members": members, "missing_capabilities": missing, "total_price": amount(total)}, nil
}

// amount formats an amount with two to eight decimals, as the platform does.
func amount(r *big.Rat) string {
	whole, fraction, _ := strings.Cut(r.FloatString(8), ".")
	return whole + "." + fraction[:2] + strings.TrimRight(fraction[2:], "0")
}

func listSavedTeams(_ context.Context, c *call, _ struct{}) (any, error) {
	if err := c.needsUser("account:read"); err != nil {
		return nil, err
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	return map[string]any{"teams": append([]Team{}, c.e.saved[c.who.UserID]...)}, nil
}

// listTeamListings needs agents:discover, which is the documented scope for it.
func listTeamListings(_ context.Context, c *call, _ struct{}) (any, error) {
	if err := c.needs("agents:discover"); err != nil {
		return nil, err
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	return map[string]any{"listings": append([]Team{}, c.e.listings...)}, nil
}
