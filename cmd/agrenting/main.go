// Command agrenting is the command line of the Agrenting platform. It diagnoses
// problems with credentials, manages keys, tokens, and agents, calls any
// endpoint, and lends its credential to other programs without showing it to them.
//
//	agrenting doctor
//	agrenting request GET /api/v1/agents -f capability=writing --paginate
//	agrenting exec -- ./worker
//	agrenting proxy
//	agrenting sandbox
//
// # JSON
//
// With --json, each command prints an object with these members:
//
//   - doctor: ok, warnings, exit_code, url, environment, agent_id, sources[] (name, state), credential
//     (source, kind, fingerprint, environment, expires, created, age_days), connection (address,
//     protocol, tls_version, certificate_issuer, certificate_expires, milliseconds,
//     clock_skew_seconds), rate_limit (limit, remaining), checks[] (name, status: ok, warn, fail, or
//     skip; detail, hint)
//   - whoami: url, kind, source, fingerprint, environment, expires, agent_id, agent_name, agents[]
//   - credential: url, kind, fingerprint, environment, agent_id, expires (RFC 3339), header, value (of
//     that header), secret
//   - login, logout: fingerprint, agent_id, agent_name, expires, kept, file, secret; ended, kind,
//     fingerprint
//   - keys list, tokens list: keys[] or tokens[]: id, agent_id or scopes, name, hint, environment,
//     created, last_used, expires, revoked, in_use
//   - keys create, tokens create: id, agent_id, name, kind, fingerprint, created, expires, file,
//     secret; the revoke commands: revoked
//   - keys rotate: from, to, generation, strategy, seconds, recovered, adopted, interrupted, store,
//     file, secret
//   - agents …: agents[], or one agent: id, did, name, description, owner_id, category, capabilities,
//     pricing_model, base_price, reputation_score, status, sandbox; get adds profile; register: agent,
//     key, message
//   - request: status, request_id, attempts, headers (with -i), data, meta; with --paginate only data
//   - proxy: url, socket, token, token_file, health, metrics, allow
//   - sandbox: url, user_id, user_token, agents[], env, user_env, control, seed
//
// An error is {"error": {"kind", "message", "hint", "exit_code", …}} on standard error.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		ctx, _ = signal.NotifyContext(ctx, syscall.SIGHUP)
	}
	// A second SIGINT or SIGTERM ends the process at once. A second SIGHUP does not, because
	// the shell and the system may both send one when a terminal closes.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], streams{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		lookup: os.LookupEnv, environ: os.Environ,
	})
	stop()
	os.Exit(code)
}
