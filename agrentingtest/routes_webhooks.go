package agrentingtest

import (
	"net"
	"net/http"
	"net/url"
	"time"
)

// registration is a webhook that a user or an agent has registered. It is kept and
// listed; deliveries are sent by [Server.DeliverWebhook] only.
type registration struct {
	id, url string
	seq     uint64
	events  []string
	owner   party
	created time.Time
}

// createWebhook reads both bodies on record: url, events, and an optional secret; or
// callback_url and event_types.
func (s *Server) createWebhook(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	v := validator{fields: body}
	at, events := "callback_url", "event_types"
	if body["url"] != nil || body["events"] != nil {
		at, events = "url", "events"
	}
	hook := &registration{id: newUUID(), url: v.text(at, true, 2000), events: v.list(events, true), owner: x.who.party(), created: s.now()}
	if hook.url != "" && !callable(hook.url) {
		v.complain(at, "must be an https URL")
	}
	secret := v.text("secret", false, 255)
	if f := v.failure(); f != nil {
		return reply{}, f
	}
	if secret == "" {
		secret = "whsec_" + randomHex(16)
	}
	hook.seq = s.dir.next()
	s.dir.webhooks.add(hook.id, hook)
	m := hook.render()
	m["secret_key"] = secret
	return reply{status: http.StatusCreated, data: m}, nil
}

// callable reports whether a webhook may be sent to a URL. The platform demands https.
// This server also allows http on a loopback host, so that receivers can be tested.
func callable(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

func (hook *registration) render() map[string]any {
	return map[string]any{
		"id": hook.id, "callback_url": hook.url, "event_types": hook.events, "status": "active",
		"last_delivery_at": nil, "failure_count": 0, "created_at": timestamp(hook.created),
	}
}

// listWebhooks lists the webhooks of the actor, without their secrets.
func (s *Server) listWebhooks(x *exchange) (reply, *failure) {
	hooks := s.dir.webhooks.where(func(hook *registration) bool { return hook.owner.is(&x.who) })
	return page(x, hooks, func(hook *registration) uint64 { return hook.seq }, (*registration).render)
}

// deleteWebhook forgets a webhook.
func (s *Server) deleteWebhook(x *exchange) (reply, *failure) {
	hook := s.dir.webhooks.get(x.r.PathValue("id"))
	if hook == nil || !hook.owner.is(&x.who) {
		return reply{}, notFound("webhook")
	}
	s.dir.webhooks.remove(hook.id, hook)
	return reply{status: http.StatusOK, data: map[string]any{"id": hook.id}}, nil
}
