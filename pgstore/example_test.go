package pgstore_test

import (
	"context"
	"fmt"
	"os"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/pgstore"
)

// The programs of a fleet share a key, its rotations and its sessions through a table.
// The password comes from PGPASSWORD or from ~/.pgpass.
func Example() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	key, err := agrenting.ParseSealingKey(os.Getenv("SEALING_KEY"))
	if err != nil {
		return err
	}
	store, err := pgstore.Open("postgres://writer@db.example.com/app?sslmode=verify-full", "writer",
		pgstore.WithSealingKey(key), pgstore.WithListen())
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
	return client.Verify(context.Background())
}

// A migration creates the table once, as a user who may create tables.
func ExampleStore_CreateSchema() {
	ctx := context.Background()
	store, err := pgstore.Open("postgres://owner@db.example.com/app?sslmode=verify-full", "writer", pgstore.WithPlaintext())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer store.Close()
	if err := store.CreateSchema(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
