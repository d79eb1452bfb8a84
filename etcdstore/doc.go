// Package etcdstore keeps the API key of a fleet, and the sessions bought with
// it, in etcd: for clients of package agrenting on many hosts, which then make
// one rotation and one exchange between them.
//
//	store, err := etcdstore.Open(etcdstore.Config{
//		Endpoints: []string{"https://etcd-0:2379", "https://etcd-1:2379", "https://etcd-2:2379"},
//		TLS:       tlsConfig,
//		Name:      "writer",
//	}, etcdstore.WithSealingKey(key))
//	if err != nil { … }
//	defer store.Close()
//
//	client, err := agrenting.New(
//		agrenting.WithKeyStore(store),
//		agrenting.WithSessionStore(store),
//		agrenting.WithRotation(agrenting.RotationPolicy{}),
//	)
//
// A [Store] is an [agrenting.KeyWatcher] and an [agrenting.SessionStore].
// Records are replaced by compare-and-swap on their modification revision, so of
// several writers one wins. Changes are watched, so a key that one process has
// rotated is in use by the others some milliseconds later. A session lock hangs
// on a lease: when its holder dies, it is free after [WithLockTTL].
//
// # Secrets
//
// Keys are sealed before etcd gets them, see [agrenting.Sealed]; who can read
// etcd, its snapshots and its backups reads no key. [WithPlaintext] is the other
// way. Sessions are sealed by package agrenting, under the API key.
//
// # When etcd is away
//
// Every operation ends in bounded time ([WithTimeout]), with an error. Clients
// go on with what they have in memory, and come back by themselves. A write whose
// answer was lost is looked for in the history of the key, so that a Save that
// has taken effect is not reported as a conflict. If even that cannot be told,
// the error matches [ErrUnknownOutcome].
//
// # Restoring a backup
//
// Revisions must not go back while clients live. Restore with
// `etcdutl snapshot restore --bump-revision 1000000000 --mark-compacted`. A
// backup may hold a key that was revoked since.
package etcdstore
