package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// assignments are the hirings of the agent.
var assignments = []struct{ capability, task string }{
	{"uppercase", "one"}, {"reverse", "two"}, {"juggling", "three"}, {"uppercase", "four"}, {"reverse", "five"},
}

// embedded hires the agent as a user, and ends when all hirings have ended.
func embedded(ctx context.Context, out io.Writer) error {
	srv := agrentingtest.NewServer(agrentingtest.WithoutRateLimits())
	defer srv.Close()
	user := srv.NewUser("Ada")
	agent := srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scribe", Capabilities: []string{"uppercase", "reverse"}})
	hirer, err := clientOf(srv, agrenting.UserToken(srv.NewToken(user.ID, agrentingtest.TokenConfig{}).Secret))
	if err != nil {
		return err
	}
	defer hirer.Close()
	client, err := clientOf(srv, agrenting.APIKey(srv.NewKey(agent.ID).Secret), agrenting.WithSession())
	if err != nil {
		return err
	}
	defer client.Close()

	var hired []string
	for _, a := range assignments {
		var answer struct{ Hiring hiring }
		_, err := hirer.Do(ctx, http.MethodPost, "/api/v1/agents/"+url.PathEscape(agent.DID)+"/hire",
			map[string]any{"task_description": a.task, "capability_requested": a.capability, "price": "1.00"}, &answer)
		if err != nil {
			return err
		}
		hired = append(hired, answer.Hiring.ID)
	}
	// The faults: the second report is accepted, but its response is lost. Then the
	// platform is unavailable, and the session ends.
	const report = "POST /api/v1/hirings/{id}/result"
	srv.Fault(report, agrentingtest.Delay(0), agrentingtest.DropAfter(), agrentingtest.Status(http.StatusServiceUnavailable, ""))
	srv.Fault("GET /api/v1/hirings/pending", agrentingtest.Delay(0), agrentingtest.RevokeNow())

	work, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- (&worker{client: client, out: out, every: 50 * time.Millisecond}).run(work) }()
	states, err := await(ctx, hirer, hired)
	stop()
	if werr := <-ended; err == nil {
		err = werr
	}
	if err != nil || ctx.Err() != nil {
		return err
	}
	for i, state := range states {
		_, _ = fmt.Fprintf(out, "%-10s %-6s %-10s %s\n", assignments[i].capability, assignments[i].task, state.Status, state.Output.Summary)
	}
	return nil
}

func clientOf(srv *agrentingtest.Server, c agrenting.Credential, opts ...agrenting.Option) (*agrenting.Client, error) {
	return agrenting.New(append(opts, agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL),
		agrenting.WithTransport(srv.Transport()), agrenting.WithCredential(c))...)
}

// state is a hiring as the user sees it.
type state struct {
	Status string                   `json:"status"`
	Final  bool                     `json:"final"`
	Output struct{ Summary string } `json:"task_output"`
}

// await waits until all hirings have ended or ctx ends.
func await(ctx context.Context, hirer *agrenting.Client, ids []string) ([]state, error) {
	states := make([]state, len(ids))
	for i := 0; i < len(ids); {
		_, err := hirer.Do(ctx, http.MethodGet, "/api/v1/hirings/"+url.PathEscape(ids[i]), nil, &states[i])
		switch {
		case ctx.Err() != nil:
			return nil, nil //nolint:nilerr // it was asked to end
		case err != nil:
			return nil, err
		case states[i].Final:
			i++
		default:
			select {
			case <-ctx.Done():
				return nil, nil
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return states, nil
}
