package agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/agrenting/agrenting-go"
)

// The URL of a socket has the credential in it, and does not show it.
func ExampleClient_SocketURL() {
	client, err := agrenting.New(
		agrenting.WithoutEnvironment(),
		agrenting.WithCredential(agrenting.APIKey("not-a-real-key")),
	)
	must(err)
	defer client.Close()

	u, err := client.SocketURL(context.Background(), agrenting.Socket{Path: agrenting.SocketAgent})
	must(err)
	fmt.Println(u.Address())
	fmt.Println(len(u.Reveal()) - len(u.Address())) // with &api_key=

	// A dialer that is given what Reveal returns shows it in its errors.
	err = &url.Error{Op: "dial", URL: u.Reveal(), Err: errors.New("no route to host")}
	fmt.Println(u.Redact(err))
	// Output:
	// wss://agrenting.com/socket/agent/websocket?vsn=2.0.0
	// 23
	// dial "wss://agrenting.com/socket/agent/websocket?vsn=2.0.0&api_key=[redacted]": no route to host
}
