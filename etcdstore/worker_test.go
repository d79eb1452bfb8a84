package etcdstore_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/etcdstore"
)

func init() { workerMain = runWorker } //nolint:gochecknoinits // TestMain is in another file

// workerConfig is the value of workerEnv.
type workerConfig struct {
	Endpoints                   []string
	Sealing, BaseURL            string
	AgentID, KeyID, Key         string
	Strategy                    agrenting.Strategy
	Sessions                    bool
	Grace, Lease, Timeout, Call time.Duration
}

// report is a line that a worker writes.
type report struct {
	Kind        string // ready, saving, adopted, renewed, alone, rotated, failed, done
	Fingerprint string `json:",omitempty"`
	At          int64
	Text        string `json:",omitempty"`
	Calls       int64  `json:",omitempty"`
}

type reporter struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func (r *reporter) put(v report) {
	v.At = time.Now().UnixNano()
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.enc.Encode(v)
}

// reportingStore reports when a new key is about to be saved.
type reportingStore struct {
	*etcdstore.Store

	out  *reporter
	last atomic.Uint64
}

func (s *reportingStore) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	if name == key {
		state, err := stateOf(ctx, data)
		if err != nil {
			return "", err
		}
		if s.last.Swap(state.Generation) < state.Generation {
			s.out.put(report{Kind: "saving", Fingerprint: state.Credential.Fingerprint()})
		}
	}
	return s.Store.Save(ctx, name, data, previous)
}

// runWorker calls the platform, and follows the commands on stdin until it ends or
// the command is stop.
func runWorker() int {
	out := &reporter{enc: json.NewEncoder(os.Stdout)}
	if err := work(out); err != nil {
		out.put(report{Kind: "failed", Text: "worker: " + err.Error()})
		return 1
	}
	return 0
}

func work(out *reporter) error {
	var cfg workerConfig
	if err := json.Unmarshal([]byte(os.Getenv(workerEnv)), &cfg); err != nil {
		return err
	}
	sealing, err := agrenting.ParseSealingKey(cfg.Sealing)
	if err != nil {
		return err
	}
	s, err := etcdstore.Open(etcdstore.Config{Endpoints: cfg.Endpoints, Name: "fleet"},
		etcdstore.WithSealingKey(sealing), etcdstore.WithTimeout(cfg.Timeout))
	if err != nil {
		return err
	}
	defer s.Close()
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
	client, err := agrenting.New(opts...)
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
	if err := call(ctx, client); err != nil {
		return err
	}
	out.put(report{Kind: "ready"})
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, err := client.Do(ctx, http.MethodGet, "/api/v1/tasks", nil, nil)
				calls.Add(1)
				if err != nil && ctx.Err() == nil {
					out.put(report{Kind: "failed", Text: err.Error()})
				}
				select {
				case <-ctx.Done():
				case <-time.After(25 * time.Millisecond):
				}
			}
		})
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		switch in.Text() {
		case "rotate":
			wg.Go(func() {
				rot, err := client.Rotate(ctx)
				for rot == nil && err == nil { // it joined a check of the key that found nothing to do
					rot, err = client.Rotate(ctx)
				}
				if err != nil {
					out.put(report{Kind: "rotation failed", Text: err.Error()})
					return
				}
				out.put(report{Kind: "rotated", Fingerprint: rot.To, Text: fmt.Sprintf("%+v", *rot)})
			})
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
