package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// members are etcd servers inside this process. In production, they run on
// other hosts.
type members struct {
	running   []*embed.Etcd
	endpoints []string
	closing   sync.WaitGroup
}

func startMembers(ctx context.Context, folder string, n int) (*members, error) {
	var errs error
	for attempt := range 5 { // another process may take a port that was found free
		m, err := tryMembers(ctx, filepath.Join(folder, strconv.Itoa(attempt)), n)
		if err == nil || ctx.Err() != nil {
			return m, err
		}
		errs = errors.Join(errs, err)
	}
	return nil, errs
}

func tryMembers(ctx context.Context, folder string, n int) (*members, error) {
	addrs := make([]string, 2*n)
	initial := make([]string, n)
	for i := range addrs {
		var err error
		if addrs[i], err = freeAddr(ctx); err != nil {
			return nil, err
		}
	}
	for i := range n {
		initial[i] = fmt.Sprintf("m%d=http://%s", i, addrs[n+i])
	}
	m := &members{running: make([]*embed.Etcd, n)}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		m.endpoints = append(m.endpoints, "http://"+addrs[i])
		wg.Go(func() {
			cfg := embed.NewConfig()
			cfg.Name, cfg.Dir = fmt.Sprintf("m%d", i), filepath.Join(folder, strconv.Itoa(i))
			cfg.ListenClientUrls = []url.URL{{Scheme: "http", Host: addrs[i]}}
			cfg.ListenPeerUrls = []url.URL{{Scheme: "http", Host: addrs[n+i]}}
			cfg.AdvertiseClientUrls, cfg.AdvertisePeerUrls = cfg.ListenClientUrls, cfg.ListenPeerUrls
			cfg.InitialCluster = strings.Join(initial, ",")
			cfg.TickMs, cfg.ElectionMs = 50, 500
			cfg.EnableGRPCGateway = false
			cfg.UnsafeNoFsync = true // no data is kept
			cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
			m.running[i], errs[i] = start(ctx, cfg)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		within(ctx, m.close)
		return nil, err
	}
	return m, nil
}

// start returns an error for a member that does not become ready, and also the
// member, so that the caller can close it.
func start(ctx context.Context, cfg *embed.Config) (*embed.Etcd, error) {
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	select {
	case <-e.Server.ReadyNotify():
		return e, nil
	case err = <-e.Err():
		return e, err
	case <-ctx.Done():
		return e, ctx.Err()
	case <-time.After(20 * time.Second):
		return e, errors.New("a member of etcd did not become ready")
	}
}

func freeAddr(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// killLeader stops the leader without notice to the other members.
func (m *members) killLeader() string {
	for i, e := range m.running {
		if e != nil && e.Server.Leader() == e.Server.MemberID() {
			m.running[i] = nil
			e.Server.HardStop()
			m.closing.Go(e.Close)
			return e.Config().Name
		}
	}
	return "nobody"
}

func (m *members) close() {
	for i, e := range m.running {
		if e != nil {
			m.running[i] = nil
			m.closing.Go(func() {
				e.Server.HardStop() // there is no work to hand over
				e.Close()
			})
		}
	}
	m.closing.Wait()
}
