// The official adapter makes every call directly, through the proxy, and under exec.
import { strict as assert } from 'node:assert';
import { execFile } from 'node:child_process';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { AgrentingClient } from '@agrentingai/paperclip-adapter';
import { calls, requestOf } from './calls.mjs';
import { environment } from './programs.mjs';
import { direct, proxied, session, under } from './ways.mjs';
import { world } from './world.mjs';

const driver = fileURLToPath(new URL('adapter.mjs', import.meta.url));
const run = promisify(execFile);

/** Runs the calls, optionally under another command. */
async function drive(w, { url, secret, under: command = [] }) {
  const [program, ...args] = [...command, process.execPath, driver, JSON.stringify(w.facts)];
  const variables = environment({ AGRENTING_URL: url, AGRENTING_API_KEY: secret });
  const { stdout } = await run(program, args, { env: variables, timeout: 60_000, maxBuffer: 16 << 20 });
  return JSON.parse(stdout);
}

/** Checks that one call was answered as expected: by a status, or by a refusal such as
 * "403 FORBIDDEN". */
function checkCall(call, result, want, x) {
  const [status, code] = String(want).split(' ');
  const request = { request: requestOf(call, x), status: Number(status), ...(code && { code }) };
  assert.deepEqual(result.requests, [request], call.name);
  if (!code) {
    assert.equal(result.error, undefined, call.name);
    call.check?.(result.value, x);
  } else if (call.name === 'testConnection') {
    assert.equal(result.value.ok, false);
    assert.ok(result.value.message.startsWith(`Agrenting API ${status}: `));
  } else {
    assert.ok(result.error.startsWith(`Agrenting API ${status}: `), `${call.name}: ${result.error}`);
  }
}

/** What the functions that make several calls have done, by name. */
function flowsOf({ results }) {
  return Object.fromEntries(results.slice(calls.length).map((result) => [result.name, result]));
}

/** Checks the functions that make several calls, for a user. */
function checkUserFlows({ results, x }) {
  const { testEnvironment, execute, legacyTestEnvironment, legacyExecute, autoSelectAgent } = flowsOf({ results });
  assert.equal(testEnvironment.value.status, 'pass');
  assert.deepEqual(testEnvironment.value.checks.map(({ code }) => code), ['agrenting_connection_ok', 'agrenting_agent_profile_ok']);

  // A hire, from its start to its result.
  const { exitCode, timedOut, costUsd, resultJson, log } = execute.value;
  assert.deepEqual([exitCode, timedOut, costUsd, resultJson.status], [0, false, 2.5, 'completed']);
  assert.deepEqual(resultJson.taskOutput, { simulated: true, echo: 'Summarize the report' });
  assert.ok(log.some((line) => line.endsWith('created with status paid')), log.join('\n'));
  assert.ok(log.some((line) => line.endsWith('is completed')), log.join('\n'));
  const [profile, hire, ...polls] = execute.requests.map(({ request, status }) => `${request} ${status}`);
  const agent = `/api/v1/agents/${encodeURIComponent(x.finisher.did)}`;
  assert.deepEqual([profile, hire], [`GET ${agent} 200`, `POST ${agent}/hire 201`]);
  assert.deepEqual([...new Set(polls)], [`GET /api/v1/hirings/${resultJson.hiringId} 200`]);

  assert.equal(legacyTestEnvironment.value.ok, true);
  assert.deepEqual([legacyExecute.value.success, JSON.parse(legacyExecute.value.output).echo], [true, 'Summarize.']);
  assert.equal(autoSelectAgent.value.hiring.status, 'paid');
}

/** Checks the functions that make several calls, for an agent: hiring is for users. */
function checkAgentFlows({ results }) {
  const { testEnvironment, execute, legacyTestEnvironment, legacyExecute, autoSelectAgent } = flowsOf({ results });
  assert.equal(testEnvironment.value.status, 'fail');
  assert.deepEqual(testEnvironment.value.checks.map(({ code }) => code), ['agrenting_connection_failed']);
  assert.match(testEnvironment.value.checks[0].detail, /^Agrenting API 403: .*"FORBIDDEN"/);
  assert.equal(execute.value.exitCode, 1);
  assert.equal(execute.value.errorCode, 'agrenting_hiring_failed');
  assert.match(execute.value.errorMessage, /^Agrenting API 403: .*"FORBIDDEN"/);
  assert.match(autoSelectAgent.error, /^Agrenting API 403: .*"FORBIDDEN"/);
  assert.equal(legacyTestEnvironment.value.ok, true);
  assert.match(legacyExecute.error, /^Agrenting API 404: .*"NOT_FOUND"/); // the agent is in the sandbox
}

/** Checks that every request was refused with the status and code. */
function checkRefused({ results }, status, code) {
  const { testEnvironment, execute, legacyTestEnvironment, legacyExecute, autoSelectAgent } = flowsOf({ results });
  assert.equal(testEnvironment.value.status, 'fail');
  assert.equal(execute.value.exitCode, 1);
  assert.equal(legacyTestEnvironment.value.ok, false);
  for (const flow of [execute.value.errorMessage, legacyExecute.error, autoSelectAgent.error]) {
    assert.match(flow, new RegExp(`^Agrenting API ${status}: .*"${code}"`));
  }
  const answers = results.flatMap(({ requests }) => requests.map((request) => `${request.status} ${request.code}`));
  assert.deepEqual([...new Set(answers)], [`${status} ${code}`]);
}

test('the table has every call of the adapter', () => {
  const methods = Object.getOwnPropertyNames(AgrentingClient.prototype)
    .filter((name) => !['constructor', 'headers', 'request'].includes(name));
  assert.ok(methods.length >= 23);
  assert.deepEqual([...new Set(calls.map(({ name }) => name))].sort(), methods.sort());
});

// An expectation is that of the actor in the table of calls, with the refusals of the
// proxy, or a refusal of everything.
const plain = (name) => ({ answer: (call) => call[name], flows: name === 'user' ? checkUserFlows : checkAgentFlows });
const lent = (name) => ({ ...plain(name), answer: (call) => (call.issues ? '403 PROXY_ISSUING' : call[name]) });
const refused = (status, code) => ({ answer: () => `${status} ${code}`, flows: (made) => checkRefused(made, status, code) });

const ways = [
  { name: 'user token', actor: 'user', way: direct, want: plain('user') },
  { name: 'agent key', actor: 'agent', way: direct, want: plain('agent') },
  // The adapter sends what it has as X-API-Key, and a session is a bearer token.
  { name: 'session in place of a key', actor: 'agent', way: session, want: refused(401, 'UNAUTHORIZED') },

  { name: 'proxy with a user token', actor: 'user', way: proxied(), want: lent('user') },
  { name: 'proxy with an agent key', actor: 'agent', way: proxied(), want: lent('agent') },
  { name: 'proxy with sessions', actor: 'agent', way: proxied(['--session']), want: lent('agent') },
  { name: 'proxy that may issue', actor: 'user', way: proxied(['--allow-issuing']), want: plain('user') },
  { name: 'proxy with its own token', actor: 'user', way: proxied(['--require-token'], (p) => p.token), want: lent('user') },
  { name: 'proxy with another token', actor: 'user', way: proxied(['--require-token']), want: refused(401, 'PROXY_TOKEN') },

  { name: 'exec with a user token', actor: 'user', way: under('--credential'), want: plain('user') },
  { name: 'exec with an agent key', actor: 'agent', way: under('--credential'), want: plain('agent') },
  { name: 'exec with a session', actor: 'agent', way: under('--var', 'AGRENTING_API_KEY'), want: refused(401, 'UNAUTHORIZED') },
];

describe('adapter', { concurrency: 2 }, () => {
  for (const { name, actor, way, want } of ways) {
    test(name, async (t) => {
      const w = await world(actor);
      t.after(w.platform.stop);
      const { stop, ...settings } = await way(w);
      const made = await drive(w, settings).finally(stop);
      calls.forEach((call, i) => checkCall(call, made.results[i], want.answer(call), made.x));
      want.flows(made);
    });
  }
});
