package agrentingtest

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// registration is a webhook that a user or an agent has registered. That it belongs to
// them, and not to the credential that registered it, is an assumption.
type registration struct {
	id, url, secret string
	seq             uint64
	events          []string
	owner           party
	created         time.Time

	outbox   outbox
	last     time.Time // time of the latest delivery
	failures int       // number of failed deliveries
}

// webhookForm is one of the two known forms of a body that registers a webhook. Each form
// has its own list of events.
type webhookForm struct {
	at, list string
	events   []string
}

var (
	documentedForm = webhookForm{"url", "events", []string{
		"task.completed", "task.failed", "task.disputed", "payment.confirmed", "payment.deposited",
		"withdrawal.processed", "agent.status_changed",
	}}
	officialForm = webhookForm{"callback_url", "event_types", []string{
		"task.created", "task.claimed", "task.in_progress", "task.completed", "task.failed", "task.cancelled",
	}}
)

// createWebhook reads both known forms of the body: url, events, and an optional secret;
// or callback_url and event_types. That it refuses an event that is not listed for a form
// is an assumption.
func (s *Server) createWebhook(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	v := validator{fields: body}
	form := officialForm
	if body["url"] != nil || body["events"] != nil {
		form = documentedForm
	}
	hook := &registration{
		id: newUUID(), url: v.text(form.at, true, 2000), events: v.list(form.list, true), owner: x.who.party(), created: s.now(),
		secret: v.text("secret", false, 255),
	}
	if hook.url != "" && !callable(hook.url) {
		v.complain(form.at, "must be an https URL, or an http URL of a loopback host such as http://127.0.0.1:8080/hook")
	}
	for _, event := range hook.events {
		if !slices.Contains(form.events, event) {
			v.complain(form.list, "must be one of "+strings.Join(form.events, ", "))
			break
		}
	}
	if f := v.failure(); f != nil {
		return reply{}, f
	}
	if hook.secret == "" {
		hook.secret = "whsec_" + randomHex(16)
	}
	hook.seq = s.dir.next()
	s.dir.webhooks.add(hook.id, hook)
	m := hook.render()
	m["secret_key"] = hook.secret
	return reply{status: http.StatusCreated, data: m}, nil
}

// callable reports whether webhooks may be sent to a URL. The platform requires https.
// This server also accepts http on a loopback host, so that receivers can be tested.
func callable(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http" && onLoopback(raw))
}

// onLoopback reports whether the host of a URL is a loopback host.
func onLoopback(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// concerns reports whether the owner takes part in a change. For a user, changes of all
// its agents count too.
func (hook *registration) concerns(c *Change) bool {
	if a := hook.owner.agent; a != nil {
		return a.id == c.ClientAgentID || a.id == c.AgentID
	}
	return hook.owner.user.id == c.UserID || hook.owner.user.id == c.OwnerID
}

// active reports whether the registration currently gets deliveries.
func (hook *registration) active() bool {
	return hook.owner.agent == nil || hook.owner.agent.reachable()
}

// postWebhooks sends a change to the webhooks that are registered for it. It needs the
// lock.
func (d *directory) postWebhooks(c *Change, data func() map[string]any) {
	var body []byte
	for _, hook := range d.webhooks.items {
		if !slices.Contains(hook.events, c.Event) || !hook.concerns(c) {
			continue
		}
		if body == nil {
			body = c.webhookBody(data())
		}
		h := Webhook{Event: c.Event, TaskID: c.TaskID, Body: body, Secret: hook.secret}
		d.post(&hook.outbox, &parcel{
			url: hook.url, name: c.Event,
			request: func(ctx context.Context) (*http.Request, error) { return h.request(ctx, hook.url, h.Body) },
			wanted:  hook.active,
			ended: func(ok bool, at time.Time) {
				if ok {
					hook.last = at
				} else {
					hook.failures++
				}
			},
		})
	}
}

// webhookBody returns the members of a task that the official client reads. The bodies of
// other events are not published. created_at is the time of the event, so that no two
// events of a task have the same body. The client does not say which time it is.
func (c *Change) webhookBody(data map[string]any) []byte {
	m := map[string]any{"status": c.Status, "created_at": timestamp(c.At)}
	members := []string{"amount", "currency"}
	switch {
	case c.TaskID != "" && c.PaymentID == "":
		members = []string{"output", "error_reason", "progress_percent", "completed_at"}
		m["progress_message"] = strings.TrimPrefix(c.Event, "task.")
	case c.PaymentID == "":
		members = nil
		m["agent_id"] = c.AgentID
	default:
		m["payment_id"] = c.PaymentID
	}
	if c.TaskID != "" {
		m["task_id"] = c.TaskID
	}
	for _, name := range members {
		if value, ok := data[name]; ok {
			m[name] = value
		}
	}
	return encode(m)
}

func (hook *registration) render() map[string]any {
	return map[string]any{
		"id": hook.id, "callback_url": hook.url, "event_types": hook.events, "status": "active",
		"last_delivery_at": optionalTime(hook.last), "failure_count": hook.failures, "created_at": timestamp(hook.created),
	}
}

// listWebhooks lists the webhooks of the actor, without their secrets.
func (s *Server) listWebhooks(x *exchange) (reply, *failure) {
	hooks := s.dir.webhooks.where(func(hook *registration) bool { return hook.owner.is(&x.who) })
	return page(x, hooks, func(hook *registration) uint64 { return hook.seq }, (*registration).render)
}

// deleteWebhook deletes a webhook and cancels its deliveries.
func (s *Server) deleteWebhook(x *exchange) (reply, *failure) {
	hook := s.dir.webhooks.get(x.r.PathValue("id"))
	if hook == nil || !hook.owner.is(&x.who) {
		return reply{}, notFound("webhook")
	}
	s.dir.webhooks.remove(hook.id, hook)
	hook.outbox.close()
	return reply{status: http.StatusOK, data: map[string]any{"id": hook.id}}, nil
}
