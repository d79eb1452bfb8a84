// The official stdio bridge: all of its tools directly, through the proxy, and under exec.
import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { bridge } from './bridge.mjs';
import { call, environment, folder, stopping } from './programs.mjs';
import { direct, proxied, session, under } from './ways.mjs';
import { world } from './world.mjs';

const unknown = '7f4df6a6-1111-4111-8111-111111111111';

const original = 'roses\nviolets\n';
const changed = `${original}sugar\n`;

/** A git repository with a poem, in which nothing has changed since the commit. */
const committed = folder();

function git(path, ...args) {
  const env = environment({ GIT_CONFIG_NOSYSTEM: '1' });
  return execFileSync('git', ['-c', 'user.name=a', '-c', 'user.email=a@localhost', ...args], { cwd: path, env, encoding: 'utf8' });
}

before(() => {
  git(committed, 'init', '-q');
  writeFileSync(join(committed, 'poem.txt'), original);
  git(committed, 'add', '.');
  git(committed, 'commit', '-qm', 'Add a poem');
});

/** A git repository in which the poem has changed. */
function repository() {
  const path = folder();
  const poem = join(path, 'poem.txt');
  cpSync(committed, path, { recursive: true });
  writeFileSync(poem, changed);
  return { path, diff: git(path, 'diff', '--unified=10'), read: () => readFileSync(poem, 'utf8') };
}

const patch = `--- a/poem.txt
+++ b/poem.txt
@@ -1,3 +1,3 @@
-roses
+tulips
 violets
 sugar
`;

async function checkPatch(b, repo) {
  const text = await b.tool('agrenting_apply_patch', { patch, working_directory: repo.path });
  assert.match(text, /^Patch applied successfully/);
  assert.equal(repo.read(), 'tulips\nviolets\nsugar\n');
}

/** Checks what the tools do with a credential that the platform takes, and that the
 * platform has what they have sent. */
async function checkTools(w, b, repo) {
  const { worker, finisher } = w.facts;
  const read = (path) => call(w.platform, w.actor.headers, 'GET', path);
  const submit = async (args) => {
    const text = await b.tool('agrenting_submit_task', { capability: 'writing', ...args });
    const [, id] = text.match(/^Task submitted successfully\.[\s\S]*\*\*Task ID:\*\* (\S+)/) ?? assert.fail(text);
    return { id, document: text.match(/\*\*Document ID:\*\* (\S+)/)?.[1] };
  };
  const done = await submit({ provider_agent_id: finisher.did, input: 'Summarize.', include_git_diff: false });
  assert.equal(done.document, undefined);
  const open = await submit({ provider_agent_id: worker.did, working_directory: repo.path });
  const task = await read(`/api/v1/tasks/${open.id}`);
  assert.deepEqual([task.provider_agent_id, task.client_agent_id], [worker.id, w.actor.agent]);
  assert.equal(task.input, repo.diff);
  const document = await fetch(`${w.platform.url}/api/v1/documents/${open.document}/download`, { headers: w.actor.headers });
  assert.equal(await document.text(), repo.diff);

  const list = await b.tool('agrenting_list_agents', { capability: 'writing', max_price: 5 });
  for (const { did } of [worker, finisher]) {
    assert.ok(list.includes(`(DID: ${did})\n  Capabilities: writing\n  Price: 2.50`), list);
  }
  assert.equal(await b.tool('agrenting_list_agents', { capability: 'writing', max_price: 1 }), 'No agents found matching the specified criteria.');
  const profile = await b.tool('agrenting_get_agent', { did: worker.did });
  assert.ok(profile.startsWith(`**Scribe**\n\nDID: ${worker.did}\n`), profile);

  assert.equal(await b.tool('agrenting_cancel_task', { task_id: open.id }), `**Task ${open.id} cancelled.**\n\nFinal status: cancelled`);
  assert.equal((await read(`/api/v1/tasks/${open.id}`)).status, 'cancelled');
  const result = await b.tool('agrenting_get_task_result', { task_id: done.id, poll_timeout_ms: 20_000 });
  assert.ok(result.startsWith(`**Task ${done.id} completed**`), result);
  assert.ok(result.includes('"echo":"Summarize."'), result);
  assert.match(await b.tool('agrenting_get_task_result', { task_id: unknown }), /^Error getting task result: Agrenting API 404: .*"NOT_FOUND"/);
  await checkPatch(b, repo);

  // The bridge takes the result for the ID of a document, and shows it after the 404.
  const good = b.requests().filter((request) => !request.includes('/documents/%7B') && !request.includes('/documents/{') && !request.includes(unknown));
  assert.deepEqual(good.filter((request) => !/ 20[01]$/.test(request)), []);
  for (const request of ['GET /api/v1/agents/discover', 'GET /api/v1/agents/did', 'POST /api/v1/tasks', 'POST /api/v1/documents', `GET /api/v1/tasks/${done.id}`, `POST /api/v1/tasks/${open.id}/cancel`]) {
    assert.ok(good.some((line) => line.startsWith(request)), `${request} in ${good.join('\n')}`);
  }
}

/** Checks that each tool that calls the platform shows the refusal. */
async function checkRefused(w, b, repo, refusal) {
  for (const [tool, args] of [
    ['agrenting_list_agents', { capability: 'writing' }],
    ['agrenting_get_agent', { did: w.facts.worker.did }],
    ['agrenting_submit_task', { provider_agent_id: w.facts.worker.did, capability: 'writing', working_directory: repo.path }],
    ['agrenting_submit_task', { provider_agent_id: w.facts.worker.did, capability: 'writing', input: 'x', include_git_diff: false }],
    ['agrenting_get_task_result', { task_id: unknown, poll_timeout_ms: 0 }],
    ['agrenting_cancel_task', { task_id: unknown }],
  ]) {
    const [status, code] = refusal.split(' ');
    assert.match(await b.tool(tool, args), new RegExp(`^Error [a-z ]+: Agrenting API ${status}: .*"${code}"`), tool);
  }
  await checkPatch(b, repo); // it needs no platform
  assert.equal(b.requests().length, 6);
}

// The bridge sends what it has as a bearer token: a user token, or a session.
const ways = [
  { name: 'user token', actor: 'user', way: direct },
  { name: 'session', actor: 'agent', way: session },
  { name: 'agent key', actor: 'agent', way: direct, refusal: '401 UNAUTHORIZED' },
  { name: 'agent key that is a bearer token', actor: 'agent', flags: ['--bearer-keys'], way: direct },

  { name: 'proxy with a user token', actor: 'user', way: proxied() },
  { name: 'proxy with an agent key', actor: 'agent', way: proxied() },
  { name: 'proxy with sessions', actor: 'agent', way: proxied(['--session']) },
  { name: 'proxy with its own token', actor: 'agent', way: proxied(['--session', '--require-token'], (p) => p.token) },
  { name: 'proxy with another token', actor: 'agent', way: proxied(['--require-token']), refusal: '401 PROXY_TOKEN' },

  { name: 'exec with a user token', actor: 'user', way: under('--credential') },
  { name: 'exec with a session', actor: 'agent', way: under('--var', 'AGRENTING_API_KEY') },
  { name: 'exec with an agent key', actor: 'agent', way: under('--credential'), refusal: '401 UNAUTHORIZED' },
];

describe('bridge', { concurrency: 3 }, () => {
  for (const { name, actor, flags = [], way, refusal } of ways) {
    test(name, async (t) => {
      const stop = stopping(t);
      const w = await world(actor, ...flags);
      stop(w.platform.stop);
      const { stop: end = () => {}, ...settings } = await way(w);
      stop(end);
      const b = await bridge(settings);
      stop(b.stop);
      const { tools } = await b.client.listTools();
      assert.deepEqual(tools.map((tool) => tool.name), [
        'agrenting_list_agents', 'agrenting_get_agent', 'agrenting_submit_task',
        'agrenting_get_task_result', 'agrenting_cancel_task', 'agrenting_apply_patch',
      ]);
      const repo = repository();
      await (refusal ? checkRefused(w, b, repo, refusal) : checkTools(w, b, repo));
    });
  }
});
