package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
	"github.com/agrenting/agrenting-go/etcdstore"
)

// shared is the server that most tests use, each under its own name.
var shared *cluster

func TestMain(m *testing.M) {
	if code, ok := fleettest.Worker(openFleet); ok {
		os.Exit(code)
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	folder, err := os.MkdirTemp("", "etcdstore")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder) //nolint:errcheck // a temporary folder
	if shared, err = startCluster(folder, 1); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	shared.close()
	if left := ours(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "a goroutine is left behind:\n"+left)
		return 1
	}
	return code
}

// ours is a goroutine of the store that has not ended, if there is one.
func ours() string {
	for end := time.Now().Add(5 * time.Second); ; <-time.After(20 * time.Millisecond) {
		var b strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
		left := ""
		for g := range strings.SplitSeq(b.String(), "\n\n") {
			if strings.Contains(g, "agrenting-go/etcdstore.") {
				left = g
			}
		}
		if left == "" || time.Now().After(end) {
			return left
		}
	}
}

// member is an etcd server of this process, with a proxy before it.
type member struct {
	name         string
	folder       string
	client, peer string // host and port
	proxy        *fleettest.Proxy

	mu      sync.Mutex
	etcd    *embed.Etcd
	closing sync.WaitGroup
}

type cluster struct{ members []*member }

// startCluster starts members on free ports. That a port found free is taken a
// moment later is possible, and then it tries others.
func startCluster(folder string, n int) (*cluster, error) {
	var errs error
	for attempt := range 5 {
		c := &cluster{}
		for i := range n {
			m := &member{name: fmt.Sprintf("m%d", i), folder: filepath.Join(folder, fmt.Sprintf("%d-%d", attempt, i))}
			var err error
			if m.client, err = freeAddr(); err == nil {
				m.peer, err = freeAddr()
			}
			if err == nil {
				m.proxy, err = fleettest.NewProxy(m.client)
			}
			if err != nil {
				return nil, err
			}
			c.members = append(c.members, m)
		}
		err := c.startAll()
		if err == nil {
			return c, nil
		}
		errs = errors.Join(errs, err)
		c.close()
	}
	return nil, errs
}

func freeAddr() (string, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (c *cluster) startAll() error {
	errs := make([]error, len(c.members))
	var wg sync.WaitGroup
	for i, m := range c.members {
		wg.Go(func() { errs[i] = c.start(m) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func httpURL(addr string) []url.URL { return []url.URL{{Scheme: "http", Host: addr}} }

// start starts a member, for the first time or again.
func (c *cluster) start(m *member) error {
	m.closing.Wait()
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = m.name, m.folder
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = httpURL(m.client), httpURL(m.client)
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = httpURL(m.peer), httpURL(m.peer)
	var initial []string
	for _, o := range c.members {
		initial = append(initial, o.name+"=http://"+o.peer)
	}
	cfg.InitialCluster = strings.Join(initial, ",")
	cfg.TickMs, cfg.ElectionMs = 50, 500
	cfg.UnsafeNoFsync = true
	cfg.EnableGRPCGateway = false
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	select {
	case <-e.Server.ReadyNotify():
	case err = <-e.Err():
	case <-time.After(20 * time.Second):
		err = errors.New("a member did not get ready in time")
	}
	if err != nil {
		e.Close()
		return err
	}
	m.mu.Lock()
	m.etcd = e
	m.mu.Unlock()
	m.proxy.Pass()
	return nil
}

func (m *member) running() *embed.Etcd {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.etcd
}

// kill stops a member without notice.
func (m *member) kill() {
	m.mu.Lock()
	e := m.etcd
	m.etcd = nil
	m.mu.Unlock()
	if e == nil {
		return
	}
	m.proxy.Refuse()
	e.Server.HardStop()
	m.closing.Go(e.Close)
}

// leader waits for one.
func (c *cluster) leader() *member {
	for range 400 {
		for _, m := range c.members {
			if e := m.running(); e != nil && e.Server.Leader() == e.Server.MemberID() {
				return m
			}
		}
		<-time.After(25 * time.Millisecond)
	}
	return nil
}

func (c *cluster) others(than *member) []*member {
	var out []*member
	for _, m := range c.members {
		if m != than {
			out = append(out, m)
		}
	}
	return out
}

func (c *cluster) endpoints() []string {
	var out []string
	for _, m := range c.members {
		out = append(out, "http://"+m.proxy.Addr())
	}
	return out
}

func (c *cluster) close() {
	var wg sync.WaitGroup
	for _, m := range c.members {
		wg.Go(func() {
			m.proxy.Close()
			m.kill()
			m.closing.Wait()
		})
	}
	wg.Wait()
}

// trio is a cluster of three for one test.
func trio(t *testing.T) *cluster {
	t.Helper()
	c, err := startCluster(t.TempDir(), 3)
	require.NoError(t, err)
	t.Cleanup(c.close)
	return c
}

// sealingKey is one for all tests.
var sealingKey = agrenting.NewSealingKey()

// open makes a store with a separate connection.
func (c *cluster) open(t *testing.T, name string, opts ...etcdstore.Option) *etcdstore.Store {
	t.Helper()
	opts = append([]etcdstore.Option{etcdstore.WithSealingKey(sealingKey)}, opts...)
	s, err := etcdstore.Open(etcdstore.Config{Endpoints: c.endpoints(), Name: name}, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// direct is a client of etcd beside the stores.
func (c *cluster) direct(t *testing.T) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: c.endpoints(), Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// unique is the name of a test's store.
func unique(t *testing.T) string {
	t.Helper()
	return strings.Map(func(r rune) rune {
		if r == '/' || r == '#' || r > 'z' {
			return '.'
		}
		return r
	}, t.Name())
}
