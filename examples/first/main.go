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
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Error("it did not work", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	client, err := agrenting.New() // reads AGRENTING_API_KEY and its like
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
