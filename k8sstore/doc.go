// Package k8sstore keeps the API key of a fleet, and its sessions, in Secrets of
// Kubernetes. The clients of package agrenting in many pods then make one rotation
// and one exchange together.
//
//	store, err := k8sstore.Open(k8sstore.Config{Name: "writer"}, k8sstore.WithSealingKey(key))
//	if err != nil { … }
//	defer store.Close()
//
//	client, err := agrenting.New(
//		agrenting.WithStore(store),
//		agrenting.WithSession(),
//		agrenting.WithRotation(agrenting.RotationPolicy{}),
//	)
//
// Each record has its own Secret, such as "writer.key". It has the type [SecretType]
// and the label [Label]. A Secret without them is never changed. Records are replaced
// by compare-and-swap on the resource version, so one of several writers wins. A
// [Store] is an [agrenting.Watcher]: a key that one process has rotated is in use by
// the others some milliseconds later.
//
// The service account needs the verbs get, update, and watch on these Secrets, and
// create on Secrets. It does not need list.
//
// # Secrets
//
// Records are sealed before the API server gets them, see [agrenting.Sealed]. Access
// to the Secrets, to etcd, or to a backup does not reveal a key. [WithPlaintext] turns
// this off.
//
// # Outages
//
// Every operation ends in bounded time ([WithTimeout]) with an error. Clients
// continue with what they have in memory, and recover by themselves. An error may
// hide a write that has taken effect. Clients load the record to find out.
package k8sstore
