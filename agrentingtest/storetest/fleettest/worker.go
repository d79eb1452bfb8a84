package fleettest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go"
)

// workerEnv makes a test binary a worker. Its value is a workerConfig.
const workerEnv = "FLEETTEST_WORKER"

// Store is a store whose changes can be watched.
type Store interface {
	agrenting.Store
	agrenting.Watcher
}

// workerConfig is the value of workerEnv.
type workerConfig struct {
	Place    string             `json:"place"`
	BaseURL  string             `json:"base_url"`
	AgentID  string             `json:"agent_id"`
	KeyID    string             `json:"key_id"`
	Key      string             `json:"key"`
	Strategy agrenting.Strategy `json:"strategy"`
	Sessions bool               `json:"sessions"`
	Grace    time.Duration      `json:"grace"`
	Lease    time.Duration      `json:"lease"`
	Call     time.Duration      `json:"call"`
	Interval time.Duration      `json:"interval"`
}

// report is a line that a worker writes. Its kind is ready, saving, adopted, renewed,
// alone, rotated, "rotation failed", failed or done.
type report struct {
	Kind        string `json:"kind"`
	Fingerprint string `json:"fingerprint,omitempty"`
	At          int64  `json:"at"` // in nanoseconds since 1970
	Text        string `json:"text,omitempty"`
	Calls       int64  `json:"calls,omitempty"`
}

type reporter struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func (r *reporter) put(v report) {
	v.At = time.Now().UnixNano()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enc.Encode(v); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// reportingStore reports when a new key is about to be saved.
type reportingStore struct {
	Store

	out  *reporter
	last atomic.Uint64
}

func (s *reportingStore) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	if name == keyRecord {
		state, err := StateOf(ctx, data)
		if err != nil {
			return "", err
		}
		if s.last.Swap(state.Generation) < state.Generation {
			s.out.put(report{Kind: "saving", Fingerprint: state.Credential.Fingerprint()})
		}
	}
	return s.Store.Save(ctx, name, data, previous)
}

// Worker runs a worker if this process was started as one by [Run], and reports
// whether it was. TestMain calls it first, and exits with the code. open opens the
// store of a place, see [Fleet]. A store that is an io.Closer is closed at the end.
func Worker(open func(place string) (Store, error)) (code int, ok bool) {
	text, ok := os.LookupEnv(workerEnv) //nolint:forbidigo // set by Run
	if !ok {
		return 0, false
	}
	out := &reporter{enc: json.NewEncoder(os.Stdout)}
	if err := work(text, open, out); err != nil {
		out.put(report{Kind: "failed", Text: "worker: " + err.Error()})
		return 1, true
	}
	return 0, true
}

// work makes requests and follows the commands on stdin, until stdin ends or the
// command is stop.
func work(text string, open func(place string) (Store, error), out *reporter) error {
	var cfg workerConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	s, err := open(cfg.Place)
	if err != nil {
		return err
	}
	if c, ok := s.(io.Closer); ok {
		defer c.Close()
	}
	client, err := agrenting.New(cfg.options(s, out)...)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var calls atomic.Int64
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if err := Call(ctx, client); err != nil {
		return err
	}
	out.put(report{Kind: "ready"})
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := Call(ctx, client)
				calls.Add(1)
				if err != nil && ctx.Err() == nil {
					out.put(report{Kind: "failed", Text: err.Error()})
				}
				pause(ctx, cfg.Interval)
			}
		})
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		switch in.Text() {
		case "rotate":
			wg.Go(func() { rotate(ctx, client, out) })
		case "stop":
			cancel()
			wg.Wait()
			if err := client.Close(); err != nil {
				return err
			}
			out.put(report{Kind: "done", Calls: calls.Load()})
			return nil
		}
	}
	return in.Err()
}

func (cfg workerConfig) options(s Store, out *reporter) []agrenting.Option {
	opts := []agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(cfg.BaseURL), agrenting.WithInsecureHTTP(),
		agrenting.WithCredential(agrenting.APIKey(cfg.Key)), agrenting.WithStore(&reportingStore{Store: s, out: out}),
		agrenting.WithRotation(agrenting.RotationPolicy{
			Strategy: cfg.Strategy, Every: -1, AgentID: cfg.AgentID, KeyID: cfg.KeyID,
			Grace: cfg.Grace, DrainTimeout: time.Second, Lease: cfg.Lease, CallTimeout: cfg.Call, RetryEvery: 100 * time.Millisecond,
		}),
		agrenting.WithObserver(func(e agrenting.Event) {
			switch {
			case e.Type == agrenting.EventStoreFailed && strings.Contains(e.Err.Error(), "session"):
				out.put(report{Kind: "alone", Text: e.Reason + ": " + e.Err.Error()})
			case e.Type != agrenting.EventRenewed:
			case e.Reason == "adopted":
				out.put(report{Kind: "adopted", Fingerprint: e.Fingerprint})
			default:
				out.put(report{Kind: "renewed", Fingerprint: e.Fingerprint})
			}
		}),
	}
	if cfg.Sessions {
		opts = append(opts, agrenting.WithSession(agrenting.SessionPolicy{MaxExchanges: 10000}))
	}
	return opts
}

func rotate(ctx context.Context, client *agrenting.Client, out *reporter) {
	rot, err := client.Rotate(ctx)
	for rot == nil && err == nil { // it joined a check of the key that found nothing to do
		rot, err = client.Rotate(ctx)
	}
	if err != nil {
		out.put(report{Kind: "rotation failed", Text: err.Error()})
		return
	}
	out.put(report{Kind: "rotated", Fingerprint: rot.To, Text: fmt.Sprintf("%+v", *rot)})
}
