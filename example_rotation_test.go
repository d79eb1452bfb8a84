package agrenting_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// keyFolder is where the examples keep their keys. A program has one such as
// /var/lib/my-agent.
func keyFolder() (path string, remove func()) {
	folder, err := os.MkdirTemp("", "agrenting-example-")
	must(err)
	return filepath.Join(folder, "keys"), func() { must(os.RemoveAll(folder)) }
}

// A call replaces a key in a store. The environment may keep naming the initial key,
// which only fills the store while it is empty.
func ExampleClient_Rotate() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	initial := srv.NewKey(scribe.ID)
	path, remove := keyFolder()
	defer remove()

	store, err := agrenting.FileStore(path)
	must(err)
	client, err := agrenting.New(
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(initial.Secret)),
		agrenting.WithStore(store),
		agrenting.WithAgentID(scribe.ID),
	)
	must(err)
	defer client.Close()

	rotation, err := client.Rotate(context.Background())
	must(err)
	fmt.Println("generation:", rotation.Generation)
	fmt.Println("the old key works:", srv.KeyAlive(initial.Secret))

	_, err = client.Do(context.Background(), http.MethodGet, "/api/v1/tasks", nil, nil)
	fmt.Println("the next call:", err)
	// Output:
	// generation: 2
	// the old key works: false
	// the next call: <nil>
}

// With a policy, keys are rotated by themselves, each 90 days unless it says
// otherwise. An owner is a second net under a response that gets lost.
func ExampleWithRotation() {
	srv, user, scribe, _ := world()
	defer srv.Close()
	token := srv.NewToken(user.ID, agrentingtest.TokenConfig{Name: "rotation"})
	path, remove := keyFolder()
	defer remove()

	store, err := agrenting.FileStore(path)
	must(err)
	client, err := agrenting.New(
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)),
		agrenting.WithStore(store),
		agrenting.WithRotation(agrenting.RotationPolicy{
			Strategy: agrenting.InPlace,
			AgentID:  scribe.ID,
			Owner:    agrenting.Static(agrenting.UserToken(token.Secret)),
		}),
	)
	must(err)
	defer client.Close()

	srv.Fault("POST /api/v1/auth/rotate-key", agrentingtest.DropAfter()) // the response gets lost
	rotation, err := client.Rotate(context.Background())
	must(err)
	fmt.Println(rotation.Strategy, rotation.Generation)
	fmt.Println("live keys:", len(srv.LiveKeys(scribe.ID)))
	// Output:
	// in place 2
	// live keys: 1
}

// Events report each step, with fingerprints. They come in order, and the last
// one is there when Close returns.
func ExampleWithObserver_rotation() {
	srv, _, scribe, _ := world()
	defer srv.Close()

	client, err := agrenting.New(
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)),
		agrenting.WithStore(agrenting.MemoryStore()),
		agrenting.WithRotation(agrenting.RotationPolicy{Strategy: agrenting.Overlap, AgentID: scribe.ID}),
		agrenting.WithObserver(func(e agrenting.Event) {
			if e.Type == agrenting.EventRotating || e.Type == agrenting.EventRotated {
				fmt.Printf("%s: %s\n", e.Type, e.Reason)
			}
		}),
	)
	must(err)
	_, err = client.Rotate(context.Background())
	must(err)
	must(client.Close())
	// Output:
	// rotating: prepare
	// rotating: issue
	// rotating: persist
	// rotating: verify
	// rotating: promote
	// rotating: revoke
	// rotating: forget
	// rotated: overlap
}
