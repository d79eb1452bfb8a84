package agrentingtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

// maxWaiting is the maximum number of deliveries that wait for one receiver, without the
// delivery in progress. Further deliveries are dropped.
const maxWaiting = 100

// outbox delivers to one receiver: in order, one at a time, and in a goroutine that runs
// only while there is something to deliver. Its fields need the directory's lock.
type outbox struct {
	waiting []*parcel
	current *parcel
	abort   context.CancelFunc // cancels the delivery in progress
	lost    int                // dropped deliveries that have not been logged yet
	closed  bool
}

// parcel is a delivery. Its functions are called with the directory's lock.
type parcel struct {
	url, name string
	request   func(context.Context) (*http.Request, error)
	wanted    func() bool                        // called before each try
	ended     func(delivered bool, at time.Time) // may be nil; not called for a parcel that is no longer wanted
}

// post queues a parcel. It needs the directory's lock.
func (s *Server) post(o *outbox, p *parcel) {
	switch {
	case o.closed:
	case len(o.waiting) >= maxWaiting:
		o.lost++
		s.delivered(p, false)
	case o.current != nil || len(o.waiting) > 0:
		o.waiting = append(o.waiting, p)
	case s.enter():
		o.waiting = append(o.waiting, p)
		go s.empty(o)
	}
}

// close drops the waiting parcels and cancels the delivery in progress. It needs the
// directory's lock.
func (o *outbox) close() {
	o.closed, o.waiting = true, nil
	if o.abort != nil {
		o.abort()
	}
}

// delivered counts the outcome of a delivery. It needs the directory's lock.
func (s *Server) delivered(p *parcel, ok bool) {
	if ok {
		s.stats.deliveries.Add(1)
	} else {
		s.stats.undelivered.Add(1)
	}
	if p.ended != nil {
		p.ended(ok, s.now())
	}
}

// empty delivers until the queue is empty.
func (s *Server) empty(o *outbox) {
	defer s.inflight.Done()
	for {
		ctx, p, lost := s.take(o)
		if lost > 0 {
			s.cfg.logger.LogAttrs(s.alive, slog.LevelWarn, "deliveries lost because too many wait",
				slog.Int("lost", lost), slog.Int("waiting", maxWaiting))
		}
		if p == nil {
			return
		}
		s.carry(ctx, o, p)
	}
}

// take makes the next parcel the current one. It returns nil if none is waiting.
func (s *Server) take(o *outbox) (ctx context.Context, p *parcel, lost int) {
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	if o.abort != nil {
		o.abort()
	}
	o.current, o.abort = nil, nil
	lost, o.lost = o.lost, 0
	if len(o.waiting) == 0 || s.alive.Err() != nil { // the server is being closed
		return s.alive, nil, lost
	}
	o.current, o.waiting = o.waiting[0], o.waiting[1:]
	ctx, o.abort = context.WithCancel(s.alive)
	return ctx, o.current, lost
}

var errUnwanted = errors.New("agrentingtest: the delivery is no longer wanted")

// carry tries to deliver a parcel until it succeeds, is no longer wanted, or has no tries
// left.
func (s *Server) carry(ctx context.Context, o *outbox, p *parcel) {
	statuses, err := s.deliver(ctx, s.couriers(), func(ctx context.Context) (*http.Request, error) {
		s.dir.mu.RLock()
		wanted := !o.closed && p.wanted()
		s.dir.mu.RUnlock()
		if !wanted {
			return nil, errUnwanted
		}
		if err := s.mayReach(p.url); err != nil {
			return nil, err
		}
		return p.request(ctx)
	})
	if errors.Is(err, errUnwanted) || err != nil && ctx.Err() != nil {
		return
	}
	s.dir.mu.Lock()
	s.delivered(p, err == nil)
	s.dir.mu.Unlock()
	if err == nil {
		return
	}
	host := ""
	if u, parseErr := url.Parse(p.url); parseErr == nil {
		host = u.Host // the rest may contain secrets
	}
	s.cfg.logger.LogAttrs(ctx, slog.LevelWarn, "delivery failed", slog.String("event", p.name),
		slog.String("receiver", host), slog.Int("tries", len(statuses)), slog.String("error", withoutURL(err)))
}

// mayReach returns an error if deliveries may not go to a URL.
func (s *Server) mayReach(raw string) error {
	switch {
	case !callable(raw):
		return errors.New("deliveries go to https URLs, and to http URLs of a loopback host")
	case s.cfg.couriers == nil && !onLoopback(raw):
		return errors.New("deliveries go to loopback hosts only; WithWebhookTransport changes that")
	}
	return nil
}

// withoutURL returns the text of an error without the URL that net/http adds to it.
func withoutURL(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return err.Error()
}

// deliver sends the request that build makes until the receiver responds with success,
// and pauses between the tries. It returns the status of each try, or 0 for a try without
// a response.
func (s *Server) deliver(
	ctx context.Context, client *http.Client, build func(context.Context) (*http.Request, error),
) ([]int, error) {
	var statuses []int
	for pause := webhookPause; ; pause *= 2 {
		req, err := build(ctx)
		if err != nil {
			return statuses, err
		}
		status := 0
		resp, err := client.Do(req)
		if err == nil {
			status = resp.StatusCode
			_ = resp.Body.Close() // only the status matters
		}
		statuses = append(statuses, status)
		switch {
		case status >= 200 && status < 300:
			return statuses, nil
		case len(statuses) < webhookTries:
		case err != nil:
			return statuses, fmt.Errorf("agrentingtest: the webhook was not delivered: %w", err)
		default:
			return statuses, fmt.Errorf("agrentingtest: the webhook was not delivered: the receiver responded with %d", status)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return statuses, fmt.Errorf("agrentingtest: the webhook was not delivered: %w", context.Cause(ctx))
		}
	}
}

// webhookTimeout is how long a receiver may take to respond. It is an assumption.
const webhookTimeout = 10 * time.Second

// deliveryClient returns an HTTP client that does not follow redirects.
func deliveryClient(t http.RoundTripper) *http.Client {
	return &http.Client{Transport: t, Timeout: webhookTimeout, CheckRedirect: noRedirects}
}

func noRedirects(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// couriers returns the client for all deliveries; see [WithWebhookTransport].
func (s *Server) couriers() *http.Client {
	s.courierOnce.Do(func() {
		t := s.cfg.couriers
		switch {
		case t != nil:
		case s.memory != nil:
			t = s.Transport()
		default:
			own := &http.Transport{} // a transport without a proxy
			s.adopt(own)
			t = own
		}
		s.courier = deliveryClient(t)
	})
	return s.courier
}
