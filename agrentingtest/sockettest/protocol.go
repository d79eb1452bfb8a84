package sockettest

import (
	"encoding/json"
	"errors"
	"regexp"
)

// The events of the Phoenix protocol.
const (
	eventJoin      = "phx_join"
	eventLeave     = "phx_leave"
	eventReply     = "phx_reply"
	eventClose     = "phx_close"
	eventError     = "phx_error"
	eventHeartbeat = "heartbeat"

	topicPhoenix = "phoenix"
)

// object is the payload of a message.
type object = map[string]any

// ref identifies a message or a join. The client chooses it, usually as a string, and
// gets it back unchanged.
type ref json.RawMessage

func (r ref) none() bool { return len(r) == 0 || string(r) == "null" }

func (r ref) equal(other ref) bool { return string(r) == string(other) }

// MarshalJSON implements json.Marshaler.
func (r ref) MarshalJSON() ([]byte, error) {
	if len(r) == 0 {
		return []byte("null"), nil
	}
	return r, nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *ref) UnmarshalJSON(b []byte) error {
	*r = append((*r)[:0], b...)
	return nil
}

// message is one message of either protocol version.
type message struct {
	joinRef, ref ref
	topic, event string
	payload      json.RawMessage
}

// fields returns the payload, which must be an object.
func (m message) fields() (map[string]json.RawMessage, bool) {
	var fields map[string]json.RawMessage
	err := json.Unmarshal(m.payload, &fields)
	return fields, err == nil && fields != nil
}

// version is a version of the Phoenix protocol.
type version uint8

const (
	version1 version = 1 // messages are objects
	version2 version = 2 // messages are arrays of [join_ref, ref, topic, event, payload]
)

var versionPattern = regexp.MustCompile(`\A([12])\.0\.\d+\z`)

// versionOf parses the parameter vsn.
func versionOf(vsn string) (version, bool) {
	if vsn == "" {
		return version1, true
	}
	m := versionPattern.FindStringSubmatch(vsn)
	switch {
	case m == nil:
		return 0, false
	case m[1] == "1":
		return version1, true
	default:
		return version2, true
	}
}

var errMessage = errors.New("sockettest: not a message of this version of the protocol")

// objectMessage is a message of version 1. A missing member is null.
type objectMessage struct {
	Topic   *string         `json:"topic"`
	Event   *string         `json:"event"`
	Payload json.RawMessage `json:"payload"`
	Ref     ref             `json:"ref"`
	JoinRef ref             `json:"join_ref"`
}

// decode decodes a message from a client.
func (v version) decode(b []byte) (message, error) {
	if v == version1 {
		var o objectMessage
		if json.Unmarshal(b, &o) != nil || o.Topic == nil || o.Event == nil || o.Payload == nil {
			return message{}, errMessage
		}
		return message{joinRef: o.JoinRef, ref: o.Ref, topic: *o.Topic, event: *o.Event, payload: o.Payload}, nil
	}
	var parts []json.RawMessage
	if json.Unmarshal(b, &parts) != nil || len(parts) < 5 {
		return message{}, errMessage
	}
	m := message{joinRef: ref(parts[0]), ref: ref(parts[1]), payload: parts[4]}
	if json.Unmarshal(parts[2], &m.topic) != nil || json.Unmarshal(parts[3], &m.event) != nil {
		return message{}, errMessage
	}
	return m, nil
}

// encode encodes a message to a client. The payload is already JSON.
func (v version) encode(m message) []byte {
	var value any = []any{m.joinRef, m.ref, m.topic, m.event, m.payload}
	if v == version1 {
		value = map[string]any{"topic": m.topic, "event": m.event, "payload": m.payload, "ref": m.ref}
	}
	b, err := json.Marshal(value)
	if err != nil {
		panic("sockettest: " + err.Error()) // all parts are valid JSON
	}
	return b
}

// encodePayload encodes a payload. It cannot fail for the payloads of this package.
func encodePayload(payload any) json.RawMessage {
	b, err := json.Marshal(payload)
	if err != nil {
		panic("sockettest: cannot encode the payload:  " + err.Error())
	}
	return b
}
