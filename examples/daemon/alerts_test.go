package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// rules are the alert rules that users load.
const rules = "../../promagrenting/alerts.yml"

// program returns the path of a program of Debian's package prometheus.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

func TestAlertRulesPassPromtool(t *testing.T) {
	t.Parallel()
	promtool := program(t, "promtool")
	for _, args := range [][]string{
		{"check", "rules", rules}, {"test", "rules", "../../promagrenting/alerts_test.yml"},
	} {
		out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput() // #nosec G204 -- see above
		require.NoError(t, err, "%s", out)
	}
}

func TestAlertsFireInPrometheus(t *testing.T) {
	t.Parallel()
	for alert, tc := range map[string]struct {
		policy agrenting.RotationPolicy
		harm   func(t *testing.T, w *world)
	}{
		"AgrentingCredentialRejected": {agrenting.RotationPolicy{}, func(t *testing.T, w *world) {
			t.Helper()
			for _, k := range w.srv.LiveKeys(w.agent.ID) {
				w.srv.RevokeKey(k.ID)
			}
			w.srv.RevokeSessions()
		}},
		"AgrentingKeyOverdue": {agrenting.RotationPolicy{Every: 5 * time.Second}, func(t *testing.T, w *world) {
			t.Helper()
			for _, route := range []string{"POST /api/v1/auth/rotate-key", "POST /api/v1/agents/{id}/credentials"} {
				w.srv.Fault(route, agrentingtest.HandlerError(http.StatusForbidden, agrentingtest.CodeForbidden).Always())
			}
		}},
	} {
		t.Run(alert, func(t *testing.T) {
			t.Parallel()
			prometheus := program(t, "prometheus")
			w := newWorld(t, tc.policy)
			_, err := w.d.client.Credential(t.Context())
			require.NoError(t, err)
			url := startPrometheus(t, prometheus, w.addr)
			require.Eventually(t, func() bool { return len(series(t, url, `agrenting_credential_state{state="ready"} == 1`)) == 1 },
				time.Minute, 50*time.Millisecond, "it is scraped")
			assert.Empty(t, series(t, url, `ALERTS{alertstate="firing"}`))
			tc.harm(t, w)
			require.Eventually(t, func() bool {
				return len(series(t, url, fmt.Sprintf(`ALERTS{alertname=%q, alertstate="firing"}`, alert))) == 1
			}, time.Minute, 50*time.Millisecond, "it fires")
		})
	}
}

// listening is the line in which Prometheus says where it listens.
var listening = regexp.MustCompile(`msg="Listening on" address=(127\.0\.0\.1:\d+)`)

// startPrometheus returns the URL of a Prometheus that reads the metrics at an address, with
// the alert rules except their waiting times. It ends with the test.
func startPrometheus(t *testing.T, path, target string) (url string) {
	t.Helper()
	folder := t.TempDir()
	b, err := os.ReadFile(rules)
	require.NoError(t, err)
	prompt := regexp.MustCompile(`(?m)^( *for:) .*$`).ReplaceAll(b, []byte("$1 0s"))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "alerts.yml"), prompt, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "prometheus.yml"), fmt.Appendf(nil, `
global: {scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}
rule_files: [alerts.yml]
scrape_configs:
  - job_name: daemon
    static_configs: [{targets: [%q]}]
`, target), 0o600))
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, path, "--config.file="+filepath.Join(folder, "prometheus.yml"), // #nosec G204 -- see program
		"--storage.tsdb.path="+filepath.Join(folder, "data"), "--web.listen-address=127.0.0.1:0")
	log, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	found := make(chan string, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				found <- "http://" + m[1]
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		<-drained
		_ = cmd.Wait() // it was killed
	})
	select {
	case url = <-found:
	case <-drained:
		t.Fatal("Prometheus has ended")
	case <-time.After(time.Minute):
		t.Fatal("Prometheus does not listen")
	}
	return url
}

// series asks Prometheus for the values of an expression now; none if it does not respond.
func series(t *testing.T, base, expr string) []any {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/api/v1/query", http.NoBody)
	require.NoError(t, err)
	q := req.URL.Query()
	q.Set("query", expr)
	req.URL.RawQuery = q.Encode()
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var answer struct{ Data struct{ Result []any } }
	_ = json.NewDecoder(resp.Body).Decode(&answer) // not ready yet
	return answer.Data.Result
}
