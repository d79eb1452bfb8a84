// Package pgstore keeps the API key of a fleet, and its sessions, in a table of
// PostgreSQL. The clients of package agrenting on many hosts then make one rotation
// and one exchange together.
//
//	store, err := pgstore.Open("postgres://writer@db.example.com/app?sslmode=verify-full", "writer",
//		pgstore.WithSealingKey(key), pgstore.WithListen())
//	if err != nil { … }
//	defer store.Close()
//
//	client, err := agrenting.New(
//		agrenting.WithStore(store),
//		agrenting.WithSession(),
//		agrenting.WithRotation(agrenting.RotationPolicy{}),
//	)
//
// The table has one row for each record, with a name such as "writer/key". Create it
// once, with [Store.CreateSchema] or with the SQL of [Store.Schema]. Records are
// replaced by compare-and-swap in one statement, so one of several writers wins. A
// commit waits until it is on disk, also where synchronous_commit is off.
//
// A [Store] is an [agrenting.Watcher]. With [WithListen], other processes adopt a
// rotated key some milliseconds later. Otherwise they do so within a second.
//
// # Secrets
//
// Records are sealed before PostgreSQL gets them, see [agrenting.Sealed]. Access to
// the database, its replicas or its backups does not reveal a key. [WithPlaintext]
// turns this off.
//
// [Open] accepts only connections that are encrypted and whose server is verified,
// except to the same machine.
//
// # Outages
//
// Every operation ends in bounded time ([WithTimeout]) with an error. Clients
// continue with what they have in memory, and recover by themselves. An error may
// hide a write that has taken effect. Clients load the record to find out.
//
// # Transaction poolers
//
// Load and Save work through poolers such as PgBouncer, because they use neither
// prepared statements nor settings of a session. LISTEN does not: a store that
// detects a pooler polls.
package pgstore
