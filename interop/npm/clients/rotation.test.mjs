// The official clients through a proxy, while its sessions end and another process rotates
// the key in place. No call fails.
import { strict as assert } from 'node:assert';
import { beforeEach, test } from 'node:test';
import { AgrentingClient } from '@agrentingai/paperclip-adapter';
import { bridge } from './bridge.mjs';
import { call, command, folder, proxy, sandbox, stopping } from './programs.mjs';
import { placeholder } from './ways.mjs';

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The adapter repeats a request after a 429, a 5xx, and a failure of the network. Here each
// of them counts: what is not 2xx is noted.
const refused = [];
beforeEach(() => refused.splice(0));
const send = globalThis.fetch;
globalThis.fetch = async (url, options) => {
  const request = `${options.method} ${new URL(url).pathname}`;
  try {
    const response = await send(url, options);
    if (!response.ok) {
      refused.push(`${request}: ${response.status}`);
    }
    return response;
  } catch (error) {
    refused.push(`${request}: ${error.cause ?? error}`);
    throw error;
  }
};

/** Calls of the adapter, without bodies and with them, by turns. */
function adapterCalls(url, { did }) {
  const client = new AgrentingClient({ agrentingUrl: url, apiKey: placeholder, agentDid: did });
  let task;
  const steps = [
    async () => (task = (await client.createTask({ providerAgentId: did, capability: 'writing', input: 'x'.repeat(2000) })).id),
    () => client.sendMessageToTask(task, { message: 'In red, please.' }),
    () => client.getTask(task),
    () => client.uploadDocument({ name: 'notes.txt', content: 'y'.repeat(20_000), taskId: task }),
    () => client.discoverAgents({ capability: 'writing' }),
    () => client.cancelTask(task),
    () => client.getBalance(),
  ];
  return (i) => steps[i % steps.length]();
}

/** Calls of the bridge's tools, by turns. */
function bridgeCalls(b, { did }) {
  let task;
  const steps = [
    ['agrenting_submit_task', () => ({ provider_agent_id: did, capability: 'writing', input: 'z'.repeat(2000), include_git_diff: false })],
    ['agrenting_get_task_result', () => ({ task_id: task, poll_timeout_ms: 0 })],
    ['agrenting_list_agents', () => ({ capability: 'writing' })],
    ['agrenting_cancel_task', () => ({ task_id: task })],
    ['agrenting_get_agent', () => ({ did })],
  ];
  return async (i) => {
    const [name, args] = steps[i % steps.length];
    const text = await b.tool(name, args());
    assert.doesNotMatch(text, /^Error/); // it has no other form
    task = text.match(/\*\*Task ID:\*\* (\S+)/)?.[1] ?? task;
  };
}

/** Rotates the key in a store, as another process than the proxy. */
function rotate(platform, store) {
  return command({ AGRENTING_URL: platform.url }, 'keys', 'rotate', '--store', store, '--strategy', 'inplace', '--yes');
}

function checkRotations(platform, rotations, count) {
  assert.deepEqual(rotations.map(({ strategy }) => strategy), Array(count).fill('in place'));
  assert.equal(new Set(rotations.map(({ to }) => to)).size, count);
  assert.equal(platform.count('POST', '/api/v1/auth/rotate-key', 200), count);
}

/** Checks that the key that the proxy was given is dead, and the proxy is not. */
async function checkEnd(platform, lent) {
  const before = refused.length;
  const first = { 'X-API-Key': platform.scout.key };
  await assert.rejects(call(platform, first, 'GET', '/api/v1/ledger/balance'), /401 .*"UNAUTHORIZED"/);
  assert.deepEqual(refused.splice(before), ['GET /api/v1/ledger/balance: 401']);
  assert.equal((await call(lent, {}, 'GET', '/api/v1/ledger/balance')).currency, 'USD');
}

test('1,000 calls through ten ends of a session and five rotations', { timeout: 300_000 }, async (t) => {
  const stop = stopping(t);
  const lifetime = 2000;
  const platform = await sandbox('--session-ttl', `${lifetime}ms`, '--request-limit', '100000', '--auth-limit', '1000');
  stop(platform.stop);
  const store = folder();
  const lent = await proxy(platform, platform.scout.key, '--session', '--max-exchanges', '1000', '--store', store);
  stop(lent.stop);
  const b = await bridge({ url: lent.url, secret: placeholder });
  stop(b.stop);

  const rotations = [];
  const made = { adapter: 0, bridge: 0 };
  const begun = Date.now();
  // No session is of use for longer than its lifetime, so that one ends in each.
  const ends = () => Math.min(Math.floor((Date.now() - begun) / lifetime), platform.count('POST', '/api/v1/auth/authenticate', 200) - 1);
  const enough = () => made.adapter + made.bridge >= 1000 && made.bridge >= 200 && ends() >= 10 && rotations.length >= 5;
  const failed = [];
  const work = async (client, step) => {
    for (let i = 0; failed.length === 0 && !enough(); i++) {
      await step(i).then(() => made[client]++, (error) => failed.push(error.message));
      await pause(60);
    }
  };
  const others = async () => {
    while (failed.length === 0 && rotations.length < 5) {
      await pause(1.5 * lifetime);
      rotations.push(await rotate(platform, store));
    }
  };
  await Promise.all([
    ...[1, 2, 3].map(() => work('adapter', adapterCalls(lent.url, platform.scribe))),
    work('bridge', bridgeCalls(b, platform.scribe)),
    others(),
  ]);
  const unauthorized = platform.requests().filter(({ status }) => status === 401).length;
  t.diagnostic(`${made.adapter} calls of the adapter and ${made.bridge} of the bridge, ${ends()} ends of sessions, ` +
    `${rotations.length} rotations, ${unauthorized} times 401 from the platform`);
  assert.deepEqual(failed, []);
  assert.deepEqual(refused.splice(0), []);
  assert.ok(enough());
  checkRotations(platform, rotations, 5);
  await checkEnd(platform, lent);
});

test('calls right after a session has ended without notice', { timeout: 300_000 }, async (t) => {
  const stop = stopping(t);
  const platform = await sandbox();
  stop(platform.stop);
  const lent = await proxy(platform, platform.scout.key, '--session');
  stop(lent.stop);
  const b = await bridge({ url: lent.url, secret: placeholder });
  stop(b.stop);
  const adapter = adapterCalls(lent.url, platform.scribe);
  const tools = bridgeCalls(b, platform.scribe);
  // With an agent's key, logout ends all sessions of the key.
  const end = () => call(platform, { 'X-API-Key': platform.scout.key }, 'DELETE', '/api/v1/auth/logout');
  for (let i = 0; i < 3; i++) {
    await end();
    await adapter(i);
    await end();
    await tools(i);
  }
  assert.deepEqual(refused.splice(0), []);
  assert.equal(platform.count('DELETE', '/api/v1/auth/logout', 200), 6);
  assert.ok(platform.count('POST', '/api/v1/auth/authenticate', 200) >= 7);
});

test('calls right after the key was rotated in place', { timeout: 300_000 }, async (t) => {
  const stop = stopping(t);
  const platform = await sandbox();
  stop(platform.stop);
  const store = folder();
  const lent = await proxy(platform, platform.scout.key, '--store', store);
  stop(lent.stop);
  const b = await bridge({ url: lent.url, secret: placeholder });
  stop(b.stop);
  const adapter = adapterCalls(lent.url, platform.scribe);
  const tools = bridgeCalls(b, platform.scribe);
  const rotations = [];
  for (let i = 0; i < 5; i++) {
    rotations.push(await rotate(platform, store));
    await Promise.all([adapter(i), tools(i)]);
  }
  assert.deepEqual(refused.splice(0), []);
  checkRotations(platform, rotations, 5);
  await checkEnd(platform, lent);
});
