// Command first lists the agents of the marketplace.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/agrenting/agrenting-go"
)

func main() {
	if err := run(context.Background()); err != nil {
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Error("cannot list the agents", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	client, err := agrenting.New() // uses the key in AGRENTING_API_KEY
	if err != nil {
		return err
	}
	defer client.Close()

	for agent, err := range client.Agents.List(ctx) {
		if err != nil {
			return err
		}
		fmt.Println(agent.ID, agent.Name, agent.Capabilities)
	}
	return nil
}
