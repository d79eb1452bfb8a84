package k8sstore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
	"github.com/agrenting/agrenting-go/k8sstore"
)

func TestConformance_realServer(t *testing.T) {
	t.Parallel()
	k := sharedKube(t)
	for name, opt := range plainAndSealed() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := "conformance-" + name
			token := k.newNamespace(t, ns, allVerbs()...)
			reader := k.newNamespace(t, ns+"-reader", "get", "watch")
			storetest.Test(t, func(t *testing.T) agrenting.Store {
				t.Helper()
				return k.open(t, ns, token, opt)
			}, storetest.Delete(func(t *testing.T, _ agrenting.Store, name string) {
				t.Helper()
				k.send(t, http.MethodDelete, "/api/v1/namespaces/"+ns+"/secrets/fleet."+name, nil, nil)
			}), storetest.ReadOnly(func(t *testing.T) agrenting.Store {
				t.Helper()
				return k.open(t, ns+"-reader", reader, opt)
			}), storetest.Gone(func(t *testing.T) agrenting.Store {
				t.Helper() // a namespace that is gone has no role of this account any more
				return k.open(t, "none", token, opt)
			}), storetest.Unreachable(func(t *testing.T) (agrenting.Store, func(), func()) {
				t.Helper()
				p, err := fleettest.NewProxy(k.apiAddr)
				require.NoError(t, err)
				t.Cleanup(p.Close)
				cfg := k.config(token)
				cfg.Host = "https://" + p.Addr()
				s := open(t, k8sstore.Config{REST: cfg, Namespace: ns, Name: "fleet"}, opt, k8sstore.WithTimeout(time.Second))
				return s, p.Refuse, p.Pass
			}))
		})
	}
}

const guide = "../docs/store-kubernetes.md"

// guideRBAC returns the objects of the guide, with the names of the test.
func guideRBAC(t *testing.T, namespace, session string) (objects []map[string]any) {
	t.Helper()
	text, err := os.ReadFile(guide)
	require.NoError(t, err)
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(text)
	require.Len(t, block, 2, "the guide has a YAML block")
	content := strings.NewReplacer("production", namespace, "session.0123456789abcdef", session).Replace(string(block[1]))
	for doc := range strings.SplitSeq(content, "---\n") {
		object := map[string]any{}
		require.NoError(t, yaml.UnmarshalStrict([]byte(doc), &object))
		objects = append(objects, object)
	}
	return objects
}

func TestGuideRBAC_isEnough(t *testing.T) {
	t.Parallel()
	k := sharedKube(t)
	const ns = "guide"
	w := fleettest.NewWorld(t)
	k.newNamespace(t, ns)
	for _, object := range guideRBAC(t, ns, "session.0123456789abcdef") {
		k.create(t, ns, fmt.Sprint(object["kind"]), object)
	}
	k.send(t, http.MethodPost, "/api/v1/namespaces/"+ns+"/secrets", map[string]any{"metadata": map[string]any{"name": "another"}}, nil)
	token := k.token(t, ns)
	k.awaitAccess(t, ns, token, "get")
	client := func() *agrenting.Client {
		s := open(t, k8sstore.Config{REST: k.config(token), Namespace: ns, Name: "writer"})
		c := w.Client(t, s, w.Policy(agrenting.Overlap), agrenting.WithSession())
		require.NoError(t, fleettest.Call(t.Context(), c))
		return c
	}
	// The error names the Secret of the sessions, for the Role.
	err := client().Status().StoreError
	require.Error(t, err)
	name := regexp.MustCompile(`"writer\.(session\.[0-9a-f]{16})"`).FindStringSubmatch(err.Error())
	require.Len(t, name, 2, "%v", err)
	for _, object := range guideRBAC(t, ns, name[1]) {
		if object["kind"] == "Role" {
			k.send(t, http.MethodPut, "/apis/rbac.authorization.k8s.io/v1/namespaces/"+ns+"/roles/writer", object, nil)
		}
	}
	eventually(t, func() bool {
		_, err := open(t, k8sstore.Config{REST: k.config(token), Namespace: ns, Name: "writer"}).Load(t.Context(), name[1])
		return errors.Is(err, agrenting.ErrNoRecord)
	}, "the Role is in effect")
	exchanges := w.Server.Count(fleettest.RouteAuth)

	rotating, idle := client(), client()
	require.NoError(t, errors.Join(rotating.Status().StoreError, idle.Status().StoreError))
	for range 3 {
		rot, err := rotating.Rotate(t.Context())
		require.NoError(t, err)
		eventually(t, func() bool { return idle.Status().Key.Fingerprint == rot.To }, "the other client adopts the key")
	}
	t.Logf("%d exchanges for two clients and three rotations", w.Server.Count(fleettest.RouteAuth)-exchanges)

	// It gives nothing else.
	cfg := k.config(token)
	cfg.Host = k.admin.Host
	limited, err := rest.HTTPClientFor(cfg)
	require.NoError(t, err)
	for _, denied := range []string{
		"GET /api/v1/namespaces/guide/secrets",
		"GET /api/v1/namespaces/guide/secrets?watch=true&timeoutSeconds=1",
		"GET /api/v1/namespaces/guide/secrets?watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3Danother",
		"GET /api/v1/namespaces/guide/secrets/another",
		"PUT /api/v1/namespaces/guide/secrets/another",
		"DELETE /api/v1/namespaces/guide/secrets/writer.key",
		"GET /api/v1/namespaces/default/secrets/writer.key",
		"GET /api/v1/namespaces/guide/configmaps",
	} {
		method, path, _ := strings.Cut(denied, " ")
		code, _ := k.request(t, limited, method, k.admin.Host+path, nil)
		assert.Equal(t, http.StatusForbidden, code, denied)
	}
}

func TestRBAC_eachVerbIsNeeded(t *testing.T) {
	t.Parallel()
	k := sharedKube(t)
	for _, missing := range allVerbs() {
		t.Run(missing, func(t *testing.T) {
			t.Parallel()
			ns := "without-" + missing
			var verbs []string
			for _, v := range allVerbs() {
				if v != missing {
					verbs = append(verbs, v)
				}
			}
			s := k.open(t, ns, k.newNamespace(t, ns, verbs...), k8sstore.WithPlaintext())
			if missing != "create" {
				full := k.newNamespace(t, ns+"-full", allVerbs()...)
				save(t, k.open(t, ns+"-full", full, k8sstore.WithPlaintext()), "1", "")
				// The same Secret, created by another account.
				var secret corev1.Secret
				k.send(t, http.MethodGet, "/api/v1/namespaces/"+ns+"-full/secrets/fleet.key", nil, &secret)
				secret.Namespace, secret.ResourceVersion, secret.UID, secret.ManagedFields = ns, "", "", nil
				k.send(t, http.MethodPost, "/api/v1/namespaces/"+ns+"/secrets", secret, nil)
			}
			switch missing {
			case "get":
				_, err := s.Load(t.Context(), key)
				require.ErrorContains(t, err, "The service account needs get, update, and watch")
			case "create":
				_, err := s.Save(t.Context(), key, []byte("x"), "")
				require.ErrorIs(t, err, agrenting.ErrReadOnlyStore)
			case "update":
				var secret corev1.Secret
				k.send(t, http.MethodGet, "/api/v1/namespaces/"+ns+"/secrets/fleet.key", nil, &secret)
				_, err := s.Save(t.Context(), key, []byte("x"), agrenting.Revision(string(secret.UID)+"."+secret.ResourceVersion+"."+secret.Annotations["agrenting.com/write"]))
				require.ErrorIs(t, err, agrenting.ErrReadOnlyStore)
			case "watch":
				c := watched(t, s)
				next(t, c)
				require.ErrorContains(t, next(t, c).err, "The service account needs get, update, and watch")
			}
		})
	}
}

// Quotas and namespaces that are being deleted refuse a write with the same status as a
// missing permission.
func TestRefusals_areNotReadOnly(t *testing.T) {
	t.Parallel()
	k := sharedKube(t)
	for name, tc := range map[string]struct {
		refuse func(t *testing.T, namespace string)
		want   string
	}{
		"quota": {func(t *testing.T, namespace string) {
			t.Helper()
			path, none := "/api/v1/namespaces/"+namespace+"/resourcequotas", map[string]string{"secrets": "0"}
			quota := map[string]any{"metadata": map[string]any{"name": "all"}, "spec": map[string]any{"hard": none}}
			k.send(t, http.MethodPost, path, quota, nil)
			quota["status"] = map[string]any{"hard": none, "used": none} // as the controller writes it
			k.send(t, http.MethodPut, path+"/all/status", quota, nil)
		}, "exceeded quota"},
		"deleted namespace": {func(t *testing.T, namespace string) {
			t.Helper()
			k.send(t, http.MethodDelete, "/api/v1/namespaces/"+namespace, nil, nil)
		}, "is being terminated"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := "refused-" + strings.ReplaceAll(name, " ", "-")
			s := k.open(t, ns, k.newNamespace(t, ns, allVerbs()...))
			tc.refuse(t, ns)
			n := 0
			var err error
			eventually(t, func() bool { // the API server notices a moment later
				n++
				_, err = s.Save(t.Context(), fmt.Sprintf("key%d", n), []byte("x"), "")
				return err != nil
			}, "the write is refused")
			require.ErrorContains(t, err, tc.want)
			require.NotErrorIs(t, err, agrenting.ErrReadOnlyStore)
			require.NotErrorIs(t, err, agrenting.ErrConflictingWrite)
			require.NotErrorIs(t, err, k8sstore.ErrUnavailable)
			assert.NotContains(t, err.Error(), "The service account needs")
		})
	}
}

func TestOutage_requestsContinueFromMemory(t *testing.T) { //nolint:paralleltest // it kills the server that all tests share
	k := sharedKube(t)
	const ns = "outage"
	token := k.newNamespace(t, ns, allVerbs()...)
	w := fleettest.NewWorld(t)
	var clients []*agrenting.Client
	for range 3 {
		c := w.Client(t, k.open(t, ns, token, k8sstore.WithSealingKey(sealingKey), k8sstore.WithTimeout(2*time.Second)),
			w.Policy(agrenting.Overlap), agrenting.WithSession())
		require.NoError(t, fleettest.Call(t.Context(), c))
		clients = append(clients, c)
	}
	load := fleettest.StartLoad(t.Context(), 5*time.Millisecond, clients...)
	k.killAPI()
	before := w.Server.Stats()
	_, err := clients[0].Rotate(t.Context())
	var rerr *agrenting.RotationError
	require.ErrorAs(t, err, &rerr)
	require.ErrorIs(t, err, k8sstore.ErrUnavailable)
	assert.Equal(t, agrenting.StagePrepare, rerr.Stage)
	<-time.After(time.Second) // of requests
	after := w.Server.Stats()
	assert.Equal(t, before.KeysCreated, after.KeysCreated, "nothing was created that could not be kept")
	assert.Equal(t, before.Authenticates, after.Authenticates, "the session in memory is valid")
	assert.Greater(t, after.Requests, before.Requests+20, "requests continue")
	require.NoError(t, k.startAPI())
	eventually(t, func() bool {
		_, err = clients[1].Rotate(t.Context())
		return err == nil
	}, "a rotation after the outage")
	load.Stop(t)
	assert.Empty(t, w.StaleKeys())
}

// place is what a process of the fleet needs to open the store.
type place struct{ Host, CA, Token, Sealing string }

const fleetNamespace = "fleet"

func openFleet(text string) (fleettest.Store, error) {
	var p place
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return nil, err
	}
	sealing, err := agrenting.ParseSealingKey(p.Sealing)
	if err != nil {
		return nil, err
	}
	return k8sstore.Open(k8sstore.Config{
		REST: &rest.Config{
			Host: p.Host, BearerToken: p.Token, TLSClientConfig: rest.TLSClientConfig{CAData: []byte(p.CA)},
		},
		Namespace: fleetNamespace, Name: "fleet",
	}, k8sstore.WithSealingKey(sealing))
}

// TestFleetOfProcesses has processes rotate their key while the API server and etcd are
// killed, and the network is cut.
func TestFleetOfProcesses(t *testing.T) { //nolint:paralleltest // it needs the machine for itself
	processes, rotations := 4, 12
	if fleettest.Full() {
		processes, rotations = 16, 50
	}
	k := sharedKube(t)
	token := k.newNamespace(t, fleetNamespace, allVerbs()...)
	text, err := json.Marshal(place{
		Host: "https://" + k.proxy.Addr(), CA: string(k.admin.CAData), Token: token, Sealing: sealingKey.Reveal(),
	})
	require.NoError(t, err)
	kills := map[string]int{}
	defer func() { t.Logf("disturbances: %v", kills) }()
	fleettest.Run(t, fleettest.Fleet{
		Place: string(text), Store: k.open(t, fleetNamespace, token), Processes: processes, Rotations: rotations,
		History: func() []agrenting.KeyState { return k.history(t) }, Adoption: 50 * time.Millisecond,
		Disturb: func(n int) {
			if n%4 != 3 {
				return
			}
			<-time.After(rand.N(60 * time.Millisecond)) // #nosec G404 -- not a secret
			switch n / 4 % 4 {
			case 0:
				kills["kube-apiserver killed"]++
				k.killAPI()
				require.NoError(t, k.startAPI())
			case 1:
				kills["connections reset"]++
				k.proxy.Refuse()
				<-time.After(300 * time.Millisecond)
				k.proxy.Pass()
			case 2:
				kills["network silent"]++
				k.proxy.Freeze()
				<-time.After(1500 * time.Millisecond)
				k.proxy.Pass()
			case 3:
				kills["etcd killed"]++
				k.etcd.kill()
				require.NoError(t, k.startEtcd())
			}
		},
	})
}

// history returns every state of the fleet's key, read from etcd.
func (k *kube) history(t *testing.T) (states []agrenting.KeyState) {
	t.Helper()
	key := []byte("/registry/secrets/" + fleetNamespace + "/fleet.key")
	var revision int64
	for {
		var out struct {
			KVs []struct {
				ModRevision    int64 `json:"mod_revision,string"`
				CreateRevision int64 `json:"create_revision,string"`
				Value          []byte
			}
		}
		code, text := k.request(t, new(http.Client), http.MethodPost, "http://"+k.etcdAddr+"/v3/kv/range",
			map[string]any{"key": key, "revision": revision})
		require.Equal(t, http.StatusOK, code, "%s", text)
		require.NoError(t, json.Unmarshal(text, &out))
		require.Len(t, out.KVs, 1)
		var secret corev1.Secret
		require.NoError(t, json.Unmarshal(out.KVs[0].Value, &secret))
		state, err := fleettest.SealedStateOf(t.Context(), secret.Data["record"], fleetNamespace+"/fleet/", sealingKey)
		require.NoError(t, err)
		states = append([]agrenting.KeyState{state}, states...)
		if out.KVs[0].ModRevision == out.KVs[0].CreateRevision {
			return states
		}
		revision = out.KVs[0].ModRevision - 1
	}
}
