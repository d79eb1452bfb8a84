// Package etcdstore keeps the API key of a fleet, and its sessions, in etcd. The
// clients of package agrenting on many hosts then make one rotation and one
// exchange together.
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
//		agrenting.WithStore(store),
//		agrenting.WithSession(),
//		agrenting.WithRotation(agrenting.RotationPolicy{}),
//	)
//
// Each record has its own etcd key, such as "/agrenting/writer/key". Records are
// replaced by compare-and-swap on their modification revision, so one of several
// writers wins. A [Store] is an [agrenting.Watcher]: a key that one process has
// rotated is in use by the others some milliseconds later.
//
// # Secrets
//
// Records are sealed before etcd gets them, see [agrenting.Sealed]. Access to
// etcd, its snapshots or its backups does not reveal a key. [WithPlaintext] turns
// this off.
//
// # Outages
//
// Every operation ends in bounded time ([WithTimeout]) with an error. Clients
// continue with what they have in memory, and recover by themselves. An error may
// hide a write that has taken effect. Clients load the record to find out.
//
// # Restoring a backup
//
// Revisions must not go back while clients are running. Restore with
// `etcdutl snapshot restore --bump-revision 1000000000 --mark-compacted`. A
// backup may contain a key that was revoked later.
package etcdstore
