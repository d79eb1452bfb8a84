package k8sstore_test

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"k8s.io/client-go/rest"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/k8sstore"
)

// In a pod, the namespace and the service account are those of the pod.
func Example() {
	run := func(ctx context.Context) error {
		sealing, err := agrenting.ParseSealingKey(os.Getenv("WRITER_SEALING_KEY"))
		if err != nil {
			return err
		}
		store, err := k8sstore.Open(k8sstore.Config{Name: "writer"}, k8sstore.WithSealingKey(sealing))
		if err != nil {
			return err
		}
		defer store.Close()
		client, err := agrenting.New( // AGRENTING_API_KEY fills the store while it is empty
			agrenting.WithStore(store),
			agrenting.WithSession(),
			agrenting.WithRotation(agrenting.RotationPolicy{}),
		)
		if err != nil {
			return err
		}
		defer client.Close()
		_, err = client.Do(ctx, http.MethodGet, "/api/v1/tasks", nil, nil)
		return err
	}
	_ = run
}

// Outside a pod, a program says where the API server and the namespace are.
func ExampleOpen() {
	store, err := k8sstore.Open(k8sstore.Config{
		Name:      "writer",
		Namespace: "production",
		REST:      &rest.Config{Host: "https://10.0.0.1:6443", BearerToken: os.Getenv("KUBE_TOKEN")},
	}, k8sstore.WithSealingKey(agrenting.NewSealingKey()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	fmt.Println(store)
	// Output: k8sstore(production/writer)
}
