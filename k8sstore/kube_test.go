package k8sstore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
	"github.com/agrenting/agrenting-go/k8sstore"
)

// apiserverEnv has the path of kube-apiserver, or is "build" to build it from the module
// in tools/kubeapiserver. etcdEnv has the path of etcd, which is built too by default.
const (
	apiserverEnv = "KUBE_APISERVER"
	etcdEnv      = "KUBE_ETCD"
	adminToken   = "tests"
)

// programs returns the paths of kube-apiserver and etcd.
var programs = sync.OnceValues(func() (paths [2]string, err error) {
	for i, p := range []struct{ env, pkg string }{
		{apiserverEnv, "k8s.io/kubernetes/cmd/kube-apiserver"}, {etcdEnv, "go.etcd.io/etcd/server/v3"},
	} {
		if paths[i] = os.Getenv(p.env); paths[i] != "" && paths[i] != "build" {
			continue
		}
		// The first build takes minutes.
		cmd := exec.Command("go", "tool", "-n", p.pkg)
		cmd.Dir = filepath.FromSlash("../tools/kubeapiserver")
		cmd.Env = append(os.Environ(), "GOWORK=off")
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return paths, fmt.Errorf("go tool -n %s: %w", p.pkg, err)
		}
		paths[i] = strings.TrimSpace(string(out))
	}
	return paths, nil
})

// kube is a kube-apiserver on an etcd, with a proxy before it.
type kube struct {
	folder             string
	etcdAddr, peerAddr string
	apiAddr            string
	programs           [2]string
	etcd, api          *server
	proxy              *fleettest.Proxy
	admin              *rest.Config // past the proxy
	http               *http.Client
}

// shared is the server that most tests use, each in its own namespace.
var shared = sync.OnceValues(func() (*kube, error) {
	folder, err := os.MkdirTemp("", "k8sstore")
	if err != nil {
		return nil, err
	}
	sharedFolder = folder
	return startKube(folder)
})

// sharedFolder is empty if no test has used shared.
var sharedFolder string

func stopShared() {
	if sharedFolder == "" {
		return
	}
	if k, err := shared(); err == nil {
		k.close()
	}
	_ = os.RemoveAll(sharedFolder)
}

// sharedKube skips a test without a server.
func sharedKube(t *testing.T) *kube {
	t.Helper()
	if os.Getenv(apiserverEnv) == "" {
		t.Skipf("%s is not set: give the path of kube-apiserver, or \"build\"", apiserverEnv)
	}
	k, err := shared()
	require.NoError(t, err)
	return k
}

// startKube starts servers on free ports. Another process may take such a port a moment
// later; other ports are tried then.
func startKube(folder string) (*kube, error) {
	paths, err := programs()
	if err != nil {
		return nil, err
	}
	var errs error
	for attempt := range 3 {
		k := &kube{folder: filepath.Join(folder, strconv.Itoa(attempt)), programs: paths}
		err := k.prepare()
		if err == nil {
			err = errors.Join(k.startEtcd(), k.startAPI())
		}
		if err == nil {
			return k, nil
		}
		errs = errors.Join(errs, err)
		k.close()
	}
	return nil, errs
}

func (k *kube) prepare() error {
	if err := os.MkdirAll(k.folder, 0o700); err != nil {
		return err
	}
	for _, addr := range []*string{&k.etcdAddr, &k.peerAddr, &k.apiAddr} {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		*addr = l.Addr().String()
		_ = l.Close()
	}
	signing, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&signing.PublicKey)
	if err != nil {
		return err
	}
	if k.proxy, err = fleettest.NewProxy(k.apiAddr); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"sa.key":     pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(signing)}),
		"sa.pub":     pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		"tokens.csv": []byte(adminToken + `,admin,1,"system:masters"` + "\n"),
	} {
		if err := os.WriteFile(k.in(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (k *kube) in(name string) string { return filepath.Join(k.folder, name) }

func (k *kube) startEtcd() (err error) {
	k.etcd, err = startServer(k.in("etcd.log"), k.programs[1], "--data-dir="+k.in("etcd"),
		"--listen-client-urls=http://"+k.etcdAddr, "--advertise-client-urls=http://"+k.etcdAddr,
		"--listen-peer-urls=http://"+k.peerAddr, "--initial-advertise-peer-urls=http://"+k.peerAddr,
		"--initial-cluster=default=http://"+k.peerAddr, "--unsafe-no-fsync")
	return err
}

// startAPI starts the API server and waits until it is ready.
func (k *kube) startAPI() (err error) {
	_, port, err := net.SplitHostPort(k.apiAddr)
	if err != nil {
		return err
	}
	k.api, err = startServer(k.in("api.log"), k.programs[0], "--etcd-servers=http://"+k.etcdAddr,
		"--bind-address=127.0.0.1", "--secure-port="+port, "--cert-dir="+k.in("certs"),
		"--endpoint-reconciler-type=none", "--authorization-mode=RBAC", "--token-auth-file="+k.in("tokens.csv"),
		"--service-account-issuer=https://kube.test", "--service-account-key-file="+k.in("sa.pub"),
		"--service-account-signing-key-file="+k.in("sa.key"), "--service-cluster-ip-range=10.0.0.0/24",
		"--storage-media-type=application/json", "--etcd-compaction-interval=0")
	if err != nil {
		return err
	}
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
		select {
		case <-k.api.done:
			log, _ := os.ReadFile(k.in("api.log"))
			return fmt.Errorf("kube-apiserver has ended: %s", log[max(0, len(log)-2000):])
		default:
		}
		if k.ready() {
			k.proxy.Pass()
			return nil
		}
	}
	return errors.New("kube-apiserver was not ready in time")
}

func (k *kube) ready() bool {
	if k.admin == nil {
		ca, err := os.ReadFile(k.in("certs/apiserver.crt"))
		if err != nil {
			return false
		}
		cfg := &rest.Config{
			Host: "https://" + k.apiAddr, BearerToken: adminToken,
			TLSClientConfig: rest.TLSClientConfig{CAData: ca}, Timeout: 20 * time.Second,
		}
		client, err := rest.HTTPClientFor(cfg)
		if err != nil {
			return false
		}
		k.admin, k.http = cfg, client
	}
	resp, err := k.http.Get(k.admin.Host + "/readyz")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// killAPI ends the API server by SIGKILL.
func (k *kube) killAPI() {
	k.proxy.Refuse()
	k.api.kill()
}

func (k *kube) close() {
	if k.proxy != nil {
		k.proxy.Close()
	}
	for _, s := range []*server{k.api, k.etcd} {
		if s != nil {
			s.kill()
		}
	}
}

// config is how to reach the server through the proxy.
func (k *kube) config(token string) *rest.Config {
	return &rest.Config{
		Host: "https://" + k.proxy.Addr(), BearerToken: token, Dial: dialUnlabeled,
		TLSClientConfig: rest.TLSClientConfig{CAData: k.admin.CAData},
	}
}

// send makes a request as the administrator, and decodes the response into out.
func (k *kube) send(t *testing.T, method, path string, body, out any) {
	t.Helper()
	code, text := k.request(t, k.http, method, k.admin.Host+path, body)
	require.Less(t, code, 300, "%s %s: %s", method, path, text)
	if out != nil {
		require.NoError(t, json.Unmarshal(text, out))
	}
}

// request makes a request with a JSON body, unless that is nil.
func (k *kube) request(t *testing.T, client *http.Client, method, url string, body any) (code int, text []byte) {
	t.Helper()
	var content bytes.Buffer
	if body != nil {
		require.NoError(t, json.NewEncoder(&content).Encode(body))
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, &content)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err = io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, text
}

// newNamespace creates a namespace with a service account "writer" that has the given
// verbs on secrets, and returns its token.
func (k *kube) newNamespace(t *testing.T, name string, verbs ...string) (token string) {
	t.Helper()
	k.send(t, http.MethodPost, "/api/v1/namespaces", corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil)
	if len(verbs) == 0 {
		return ""
	}
	meta := metav1.ObjectMeta{Name: "writer", Namespace: name}
	k.create(t, name, "ServiceAccount", corev1.ServiceAccount{ObjectMeta: meta})
	k.create(t, name, "Role", rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: verbs},
	}})
	k.create(t, name, "RoleBinding", rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "writer"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "writer", Namespace: name}},
	})
	token = k.token(t, name)
	k.awaitAccess(t, name, token, verbs[0])
	return token
}

// awaitAccess waits until a token has a verb on the Secret "writer.key".
func (k *kube) awaitAccess(t *testing.T, namespace, token, verb string) {
	t.Helper()
	cfg := k.config(token)
	client, err := rest.HTTPClientFor(cfg)
	require.NoError(t, err)
	review := map[string]any{"spec": map[string]any{"resourceAttributes": map[string]any{
		"namespace": namespace, "verb": verb, "resource": "secrets", "name": "writer.key",
	}}}
	eventually(t, func() bool {
		var out struct{ Status struct{ Allowed bool } }
		_, text := k.request(t, client, http.MethodPost, k.admin.Host+"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
		return json.Unmarshal(text, &out) == nil && out.Status.Allowed
	}, "the Role is in effect")
}

// create creates an object in a namespace.
func (k *kube) create(t *testing.T, namespace, kind string, object any) {
	t.Helper()
	path, ok := map[string]string{
		"ServiceAccount": "/api/v1/namespaces/" + namespace + "/serviceaccounts",
		"Role":           "/apis/rbac.authorization.k8s.io/v1/namespaces/" + namespace + "/roles",
		"RoleBinding":    "/apis/rbac.authorization.k8s.io/v1/namespaces/" + namespace + "/rolebindings",
	}[kind]
	require.True(t, ok, "unknown kind %q", kind)
	k.send(t, http.MethodPost, path, object, nil)
}

// token returns a token of the service account "writer".
func (k *kube) token(t *testing.T, namespace string) string {
	t.Helper()
	var out struct{ Status struct{ Token string } }
	k.send(t, http.MethodPost, "/api/v1/namespaces/"+namespace+"/serviceaccounts/writer/token", map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{"expirationSeconds": 3600},
	}, &out)
	require.NotEmpty(t, out.Status.Token)
	return out.Status.Token
}

// allVerbs are those that a store needs.
func allVerbs() []string { return []string{"get", "create", "update", "watch"} }

// open opens a store of a service account.
func (k *kube) open(t *testing.T, namespace, token string, opts ...k8sstore.Option) *k8sstore.Store {
	t.Helper()
	return open(t, k8sstore.Config{REST: k.config(token), Namespace: namespace, Name: "fleet"}, opts...)
}
