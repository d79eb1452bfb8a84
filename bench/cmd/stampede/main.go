// Command stampede makes many callers use this SDK and its peers while credentials end,
// with a server on loopback. See package stampede.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/agrenting/agrenting-go/bench/internal/stampede"
)

func main() {
	o := stampede.Options{Progress: os.Stderr}
	flag.IntVar(&o.Workers, "workers", 256, "`number` of callers")
	flag.DurationVar(&o.Segment, "segment", 3*time.Second, "how long each load lasts")
	flag.IntVar(&o.Rounds, "rounds", 5, "how often ours is run with and without expiry, in turn")
	flag.BoolVar(&o.OnlyOurs, "ours", false, "run our client only")
	flag.BoolVar(&o.NoOutage, "no-outage", false, "skip the outages")
	asJSON := flag.Bool("json", false, "print the result as JSON")
	limit := flag.Duration("limit", 10*time.Minute, "stop after this `duration`")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	if err := run(ctx, o, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "stampede:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to be undone
	}
}

func run(ctx context.Context, o stampede.Options, asJSON bool) error {
	r, err := stampede.Run(ctx, o)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	_, err = fmt.Print(r.Text())
	return err
}
