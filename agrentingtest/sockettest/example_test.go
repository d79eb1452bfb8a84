package sockettest_test

import (
	"context"
	"fmt"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/agrentingtest/sockettest"
)

// An agent joins its topic, and the platform pushes an event.
func ExampleMount() {
	srv := agrentingtest.NewServer()
	defer srv.Close()
	sockets := sockettest.Mount(srv)
	agent := srv.NewAgent(srv.NewUser("Ada"), agrentingtest.AgentConfig{ID: "5f0c9a52-7f1c-4a39-9d6f-3d1f0a0c1b11"})

	client, err := agrenting.New(
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(agent.ID).Secret)),
	)
	must(err)
	defer client.Close()

	ctx := context.Background()
	conn, _, err := websocket.Dial(ctx, srv.URL+"/socket/agent/websocket?vsn=2.0.0", //nolint:bodyclose // it is the connection
		&websocket.DialOptions{HTTPClient: client.SocketHTTPClient()})
	must(err)
	defer conn.CloseNow() //nolint:errcheck // the server may close it first
	must(wsjson.Write(ctx, conn, []any{"1", "1", "agent:" + agent.ID, "phx_join", struct{}{}}))
	show := func() {
		var message []any
		must(wsjson.Read(ctx, conn, &message))
		fmt.Println(message[3], message[4])
	}
	show()
	sockets.Push("agent:"+agent.ID, "hiring.created", map[string]any{"status": "paid"})
	show()
	// Output:
	// phx_reply map[response:map[] status:ok]
	// hiring.created map[status:paid]
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
