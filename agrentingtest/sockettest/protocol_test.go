package sockettest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest/sockettest"
)

// The texts are those that Phoenix sends, except for the order of members.
func TestProtocolVersion2(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		p := w.connect(agentPath, w.key.Secret)
		topic := "agent:" + w.provider.ID
		for _, c := range []struct{ send, want string }{
			{`[null,"7","phoenix","heartbeat",{}]`, `[null,"7","phoenix","phx_reply",{"response":{},"status":"ok"}]`},
			{`["3","4","TOPIC","phx_join",{}]`, `["3","4","TOPIC","phx_reply",{"response":{},"status":"ok"}]`},
			{`["3","5","TOPIC","phx_leave",{}]`, `["3","5","TOPIC","phx_reply",{"response":{},"status":"ok"}]`},
			{"", `["3","3","TOPIC","phx_close",{}]`},
			{`["3","6","TOPIC","phx_leave",{}]`, `["3","6","TOPIC","phx_reply",{"response":{},"status":"ok"}]`},
			{`["3","7","TOPIC","task.stream_chunk",{}]`, `[null,"7","TOPIC","phx_reply",{"response":{"reason":"unmatched topic"},"status":"error"}]`},
			{`["3","8","room:lobby","phx_join",{}]`, `[null,"8","room:lobby","phx_reply",{"response":{"reason":"unmatched topic"},"status":"error"}]`},
			{`["3","9","agent:other","phx_join",{}]`, `["3","9","agent:other","phx_reply",{"response":{"reason":"unauthorized"},"status":"error"}]`},
			{`[3,4,"TOPIC","phx_join",{}]`, `[3,4,"TOPIC","phx_reply",{"response":{},"status":"ok"}]`}, // numbers
			{`[5,5,"TOPIC","phx_join",{}]`, `[3,3,"TOPIC","phx_close",{}]`},                            // joined again
			{"", `[5,5,"TOPIC","phx_reply",{"response":{},"status":"ok"}]`},
			{`[5,6,"TOPIC","unknown",{}]`, `[5,5,"TOPIC","phx_error",{}]`},
			{`[5,7,"TOPIC","unknown",{}]`, `[null,7,"TOPIC","phx_reply",{"response":{"reason":"unmatched topic"},"status":"error"}]`},
		} {
			if c.send != "" {
				p.write(strings.ReplaceAll(c.send, "TOPIC", topic))
			}
			assert.JSONEq(t, strings.ReplaceAll(c.want, "TOPIC", topic), p.read(), c.send)
		}
	})
}

func TestProtocolVersion1(t *testing.T) {
	t.Parallel()
	for _, vsn := range []string{"", "vsn=1.0.0&"} {
		inBubble(t, func(w *world) {
			t := w.t
			p, status := w.dial(agentPath, vsn+"api_key="+w.key.Secret)
			require.Equal(t, http.StatusSwitchingProtocols, status)
			topic := "agent:" + w.provider.ID
			for _, c := range []struct{ send, want string }{
				{`{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}`, `{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"1"}`},
				{`{"topic":"TOPIC","event":"phx_join","payload":{},"ref":"2"}`, `{"topic":"TOPIC","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"2"}`},
				{"PUSH", `{"topic":"TOPIC","event":"custom","payload":{"n":1},"ref":null}`},
				{`{"topic":"TOPIC","event":"phx_leave","payload":{},"ref":"3"}`, `{"topic":"TOPIC","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"3"}`},
				{"", `{"topic":"TOPIC","event":"phx_close","payload":{},"ref":"2"}`},
			} {
				switch c.send {
				case "":
				case "PUSH":
					assert.Equal(t, 1, w.sockets.Push(topic, "custom", map[string]any{"n": 1}))
				default:
					p.write(strings.ReplaceAll(c.send, "TOPIC", topic))
				}
				assert.JSONEq(t, strings.ReplaceAll(c.want, "TOPIC", topic), p.read(), c.send)
			}
		})
	}
}

func TestOutdatedJoinReferenceIsIgnored(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		p := w.connect(agentPath, w.key.Secret)
		topic := "agent:" + w.provider.ID
		require.Nil(t, p.join(topic))
		for _, event := range []string{"phx_leave", "unknown"} {
			p.write(fmt.Sprintf(`["0","8",%q,%q,{}]`, topic, event))
		}
		p.quiet()
		assert.Equal(t, 1, w.sockets.Push(topic, "custom", map[string]any{}))
		p.expect(topic, "custom")
		p.write(fmt.Sprintf(`[null,"8",%q,"unknown",{}]`, topic)) // without one it is current
		assert.Equal(t, "phx_error", p.next().Event)
	})
}

func TestSocketHasAtMost100Channels(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		p := w.connect(commonPath, w.key.Secret)
		for i := range 100 {
			topic := fmt.Sprint("negotiation:", i)
			w.sockets.Allow(topic, w.provider.ID)
			require.Nil(t, p.join(topic))
		}
		assert.Equal(t, "too many channels joined", p.join("agents:discovery"))
		p.write(`["1","1","negotiation:7","phx_join",{}]`)
		assert.Equal(t, "phx_close", p.next().Event, "a topic that is joined again does not count twice")
		assert.Equal(t, "ok", p.next().Payload["status"])
	})
}

func TestMalformedMessageEndsTheSocket(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		vsn, text string
		kind      websocket.MessageType
		want      websocket.StatusCode
	}{
		"no JSON":                {"2.0.0", "hello", websocket.MessageText, websocket.StatusInternalError},
		"an object in version 2": {"2.0.0", `{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}`, websocket.MessageText, websocket.StatusInternalError},
		"a short array":          {"2.0.0", `[null,"1","phoenix","heartbeat"]`, websocket.MessageText, websocket.StatusInternalError},
		"a number as the topic":  {"2.0.0", `[null,"1",7,"heartbeat",{}]`, websocket.MessageText, websocket.StatusInternalError},
		"a list as the event":    {"2.0.0", `[null,"1","phoenix",[],{}]`, websocket.MessageText, websocket.StatusInternalError},
		"an array in version 1":  {"1.0.0", `[null,"1","phoenix","heartbeat",{}]`, websocket.MessageText, websocket.StatusInternalError},
		"a missing member":       {"1.0.0", `{"topic":"phoenix","event":"heartbeat","ref":"1"}`, websocket.MessageText, websocket.StatusInternalError},
		"binary":                 {"2.0.0", "\x00\x00\x00\x00\x00", websocket.MessageBinary, websocket.StatusUnsupportedData},
		"too large":              {"2.0.0", `[null,"1","phoenix","heartbeat",{"a":"` + strings.Repeat("a", 1000) + `"}]`, websocket.MessageText, websocket.StatusMessageTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(w *world) {
				t := w.t
				p, _ := w.dial(agentPath, "vsn="+c.vsn+"&api_key="+w.key.Secret)
				require.NoError(t, p.conn.Write(t.Context(), c.kind, []byte(c.text)))
				assert.Equal(t, c.want, p.closed())
			}, sockettest.WithReadLimit(512))
		})
	}
}

func TestPushTakesObjectsOnly(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		for _, payload := range []any{nil, "text", []int{1}, func() {}} {
			assert.Panics(t, func() { w.sockets.Push("agents:discovery", "x", payload) })
		}
		assert.Zero(t, w.sockets.Push("agents:discovery", "x", struct{}{}))
	})
}
