package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/agrentingtest/mcptest"
	"github.com/agrenting/agrenting-go/agrentingtest/sockettest"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/ascii"
)

type sandboxCmd struct {
	Listen     string        `default:"127.0.0.1:0" placeholder:"ADDR" help:"A loopback address to listen on, port 0 for any free one; ${default} by default."`
	SessionTTL time.Duration `name:"session-ttl" default:"20h" help:"Lifetime of sessions."`
	Agents     int           `default:"2" help:"How many production agents there are."`
	BearerKeys bool          `help:"Also accept an agent's key as a bearer token."`
	EnvFile    string        `placeholder:"FILE" help:"Write the lines to export to FILE (0600) once it serves. FILE is there while it serves: one that a killed run has left is replaced, its own removed at the end, and any other file refused."`

	Limits sandboxLimits `embed:""`
	Faults sandboxFaults `embed:""`
}

type jsonSandbox struct {
	URL    string             `json:"url"`
	UserID string             `json:"user_id"`
	Token  string             `json:"user_token"`
	Agents []jsonSandboxAgent `json:"agents"`
	// Env is for programs that act as the first agent, UserEnv for programs that act as
	// the user, such as the platform's MCP bridge.
	Env     map[string]string `json:"env"`
	UserEnv map[string]string `json:"user_env"`
	// Control is the URL of the control routes, such as Control+"/faults".
	Control string  `json:"control"`
	Seed    *uint64 `json:"seed,omitempty"` // of a run with random choices
}

type jsonSandboxAgent struct {
	ID      string `json:"id"`
	DID     string `json:"did"`
	Name    string `json:"name"`
	Sandbox bool   `json:"sandbox"`
	Key     string `json:"key"`
}

// Run serves the embedded platform until it is interrupted. Its secrets are made
// up and die with it.
func (c *sandboxCmd) Run(a *app) error {
	if c.Agents < 1 || c.Agents > 100 {
		return usage("", "--agents is from 1 to 100")
	}
	addr, err := loopback(c.Listen, "use 127.0.0.1 or [::1]; other machines reach it through a tunnel, such as ssh -L")
	if err != nil {
		return err
	}
	ready, err := newReadyFile("--env-file", c.EnvFile, envFile.MatchString)
	if err != nil {
		return err
	}
	c.Faults.drawSeed()
	opts, err := c.options()
	if err != nil {
		return err
	}
	opts = append(opts, deliveryOptions(a)...)
	if err := ready.clear(); err != nil {
		return err
	}
	srv, err := agrentingtest.Listen(addr, opts...)
	if err != nil {
		return failure("choose another --listen, such as 127.0.0.1:0 for any free port", "%v", err)
	}
	defer srv.Close()
	mount(srv)
	c.Faults.script(srv)
	world := c.world(srv)
	if a.JSON {
		a.encode(world)
	} else {
		c.introduce(a, &world)
	}
	if err := cmp.Or(a.filterErr, a.unwritten(c.EnvFile == "")); err != nil { // no other process would know of it
		return err
	}
	if err := ready.write(envFileMark + "\n" + strings.TrimSuffix(exports(&world), "\n")); err != nil {
		return err
	}
	<-a.ctx.Done()
	ready.remove()
	if !a.JSON {
		report := srv.Report()
		a.ui.onStandardError().sandboxReport(&report)
	}
	return nil
}

// mount adds the routes of other modules. A chunk that an agent emits over MCP reaches
// the sockets that have joined the stream of its task.
func mount(srv *agrentingtest.Server) *sockettest.Sockets {
	sockets := sockettest.Mount(srv)
	mcptest.Mount(srv).OnChunk(func(c mcptest.Chunk) {
		_ = sockets.Emit(c.TaskID, c.Content, "", nil) // refused if the work has ended in the meantime
	})
	return sockets
}

// deliveryOptions has the platform deliver webhooks and hires, and log a line for each that
// could not be delivered.
func deliveryOptions(a *app) []agrentingtest.Option {
	log := a.log
	if log == nil {
		log = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	// Receivers may be anywhere, since the user registers them.
	return []agrentingtest.Option{agrentingtest.WithLogger(log), agrentingtest.WithWebhookTransport(agrenting.NewBaseTransport())}
}

// options returns the options that the flags ask for.
func (c *sandboxCmd) options() ([]agrentingtest.Option, error) {
	opts, err := c.Faults.options()
	if err != nil {
		return nil, err
	}
	limits, err := c.Limits.option()
	if err != nil {
		return nil, err
	}
	if c.BearerKeys {
		opts = append(opts, agrentingtest.WithBearerKeys())
	}
	return append(opts, limits, agrentingtest.WithControl(), agrentingtest.WithSessionTTL(c.SessionTTL), agrentingtest.WithLogLimit(1)), nil
}

// envFileMark is the first line of --env-file, by which the next run knows it.
const envFileMark = "# written by agrenting sandbox; it is removed when the sandbox ends"

// envFile matches a whole file: a file with other lines is kept.
var envFile = regexp.MustCompile(`\A` + regexp.QuoteMeta(envFileMark) + `\n(export AGRENTING_[A-Z_]+=[!-~]+\n)+\z`)

// loopback checks that addr is a loopback address: everyone who reaches a sandbox or a
// proxy can use its credentials.
func loopback(addr, hint string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", usage(hint, "invalid --listen address %q (want host:port, for example 127.0.0.1:8080)", addr)
	}
	if ascii.EqualFold(host, "localhost") {
		host = "127.0.0.1" // whatever the name server says
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return "", usage(hint, "--listen: %q is not an address of this machine alone", addr)
	}
	return net.JoinHostPort(host, port), nil
}

func (c *sandboxCmd) world(srv *agrentingtest.Server) jsonSandbox {
	user := srv.NewUser("Ada")
	w := jsonSandbox{
		URL: srv.URL, UserID: user.ID, Control: srv.URL + "/_sandbox", Seed: c.Faults.Seed,
		Token: srv.NewToken(user.ID, agrentingtest.TokenConfig{Name: "everything"}).Secret,
	}
	add := func(cfg agrentingtest.AgentConfig) jsonSandboxAgent {
		g := srv.NewAgent(user, cfg)
		j := jsonSandboxAgent{ID: g.ID, DID: g.DID, Name: g.Name, Sandbox: g.Sandbox, Key: srv.NewKey(g.ID).Secret}
		w.Agents = append(w.Agents, j)
		return j
	}
	names := []string{"Scribe", "Scout"}
	for i := range c.Agents {
		cfg := agrentingtest.AgentConfig{Name: fmt.Sprintf("Agent %d", i+1), Capabilities: []string{"writing"}, BasePrice: "2.50"}
		if i < len(names) {
			cfg.Name = names[i]
		}
		if i > 0 { // the first agent is played by the user's program
			cfg.MockAfter = mockAfter
		}
		add(cfg)
	}
	toy := add(agrentingtest.AgentConfig{Name: "Toy", Sandbox: true, Capabilities: []string{"writing"}, BasePrice: "2.50"})
	w.Env = map[string]string{
		varURL: w.URL, varAPIKey: w.Agents[0].Key, varSandboxKey: toy.Key, varAgentID: w.Agents[0].ID,
	}
	w.UserEnv = map[string]string{varURL: w.URL, varAPIKey: w.Token}
	return w
}

// mockAfter is how long the other agents take to complete their work. A task can be
// canceled before.
const mockAfter = time.Second

// exports are lines for a shell.
func exports(w *jsonSandbox) string {
	var b strings.Builder
	for _, name := range []string{varURL, varAPIKey, varAgentID} {
		fmt.Fprintf(&b, "export %s=%s\n", name, w.Env[name])
	}
	return b.String()
}

func (c *sandboxCmd) introduce(a *app, w *jsonSandbox) {
	p := a.ui
	p.line("An Agrenting platform is serving at %s", p.paint(bold, w.URL))
	p.line("Put the lines below into another shell, and try agrenting doctor there.")
	p.line("Stop it with Ctrl-C. Its secrets are worth nothing elsewhere.")
	p.line("Make it fail, and see what happened, at %s (faults, report, revoke, rotate).", w.Control)
	if c.Faults.random() {
		p.line("%s", c.Faults.choices())
	}
	p.line("")
	p.pairs(pair{"user token", w.Token})
	p.line("")
	var rows [][]string
	for _, g := range w.Agents {
		name := g.Name
		if g.Sandbox {
			name += " (sandbox)"
		}
		rows = append(rows, []string{name, g.ID, g.Key})
	}
	p.table([]string{"AGENT", "ID", "KEY"}, rows)
	p.line("\n%s", exports(w))
	p.line("For programs that hire agents, such as the platform's MCP bridge (they send the user token):\n")
	p.line("export %s=%s %s=%s\n", varURL, w.URL, varAPIKey, w.Token)
	p.line("For its sandbox:\n\nexport %s=sandbox %s=%s %s=%s", varEnv, varSandboxKey, w.Env[varSandboxKey], varAgentID, w.Agents[len(w.Agents)-1].ID)
}
