// The official TypeScript MCP client against the sandbox: directly, and through the proxy
// while sessions of 1.5 s end and are renewed.
import { strict as assert } from 'node:assert';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { call as request, proxy, sandbox, stopping } from '../clients/programs.mjs';

const sessionTTL = 1500;
let world;
let lent;

before(async () => {
  world = await sandbox('--session-ttl', `${sessionTTL}ms`, '--no-rate-limits');
  lent = await proxy(world, world.scribe.key, '--session', '--max-exchanges', '1000');
});

after(async () => {
  await lent?.stop();
  await world?.stop();
});

/** Begins an MCP session. */
async function connect(path, headers, base = world.url) {
  const options = { requestInit: { headers } };
  const url = new URL(base + path);
  const transport = path.endsWith('/sse') ? new SSEClientTransport(url, options) : new StreamableHTTPClientTransport(url, options);
  const client = new Client({ name: 'interop', version: '1' });
  await client.connect(transport);
  return client;
}

/** Calls a tool that succeeds, and returns its result. */
async function call(client, name, args = {}) {
  const result = await client.callTool({ name, arguments: args });
  assert.notEqual(result.isError, true, `${name}: ${result.content[0].text}`);
  assert.deepEqual(JSON.parse(result.content[0].text), result.structuredContent);
  return result.structuredContent;
}

/** Versions of the client differ in where they have the status. */
const unauthorized = (error) => error.code === 401 || /401/.test(error.message);

const bearer = (secret) => ({ Authorization: `Bearer ${secret}` });

for (const path of ['/mcp/hirer', '/mcp/hirer/sse']) {
  test(`300 calls of ${path} through the proxy, with sessions that end`, { timeout: 300_000 }, async () => {
    const client = await connect(path, bearer('ap_placeholder_0000000000'), lent.url);
    const exchanges = () => world.count('POST', '/api/v1/auth/authenticate', 200);
    const before = exchanges();
    const failures = [];
    let calls = 0;
    for (; calls < 300 || exchanges() < before + 4; calls++) {
      try {
        assert.equal((await call(client, 'list_agents', { limit: 5 })).agents.length, 3);
      } catch (error) {
        failures.push(error.message);
      }
      await sleep(15);
    }
    assert.deepEqual(failures, [], `${failures.length} of ${calls} calls failed`);
    await client.close();
  });
}

test('a hiring, from its start to its result', { timeout: 60_000 }, async () => {
  const { scribe } = world;
  for (const path of ['/mcp/hirer', '/mcp/hirer/sse']) {
    const user = await connect(path, bearer(world.token));
    assert.equal((await user.listTools()).tools.length, 20);
    const { hiring } = await call(user, 'hire_agent', {
      agent_did: scribe.did, capability_requested: 'writing', task_description: 'a poem', price: '2.50',
    });
    const agent = await connect('/mcp/sse', { 'X-API-Key': scribe.key });
    assert.equal((await agent.listTools()).tools.length, 4);
    const { contents } = await agent.readResource({ uri: 'hiring://pending' });
    assert.deepEqual(JSON.parse(contents[0].text).map(({ id }) => id), [hiring.id]);
    await call(agent, 'submit_hiring_result', { hiring_id: hiring.id, output: { summary: 'roses' } });
    const { hirings, all_ended } = await call(user, 'wait_for_hirings', { hiring_ids: [hiring.id] });
    assert.equal(all_ended, true);
    assert.deepEqual(hirings[0].task_output, { summary: 'roses' });
    await Promise.all([user.close(), agent.close()]);
  }
});

test('an agent works through the proxy', { timeout: 60_000 }, async () => {
  const user = await connect('/mcp/hirer', bearer(world.token));
  const { hiring } = await call(user, 'hire_agent', {
    agent_did: world.scribe.did, capability_requested: 'writing', task_description: 'a poem', price: '2.50',
  });
  const agent = await connect('/mcp/sse', {}, lent.url);
  for (let i = 1; i <= 3; i++) {
    const { sequence } = await call(agent, 'task_emit_chunk', { task_id: hiring.id, chunk: `verse ${i}` });
    assert.equal(sequence, i);
    await sleep(sessionTTL);
  }
  await call(agent, 'report_hiring_failure', { hiring_id: hiring.id, reason: 'other' });
  assert.equal((await call(user, 'get_hiring_status', { hiring_id: hiring.id })).status, 'failed');
  await Promise.all([user.close(), agent.close()]);
});

test('a refused credential is an error, and no reason for OAuth', { timeout: 60_000 }, async () => {
  for (const path of ['/mcp/hirer', '/mcp/hirer/sse', '/mcp/sse']) {
    await assert.rejects(connect(path, bearer('ap_unknown')), unauthorized);
  }
});

// Otherwise the calls through the proxy would prove nothing.
test('a session ends after its time, and by logout', { timeout: 60_000 }, async (t) => {
  const authenticate = async (platform) => bearer((await request(platform, { 'X-API-Key': platform.scribe.key }, 'POST', '/api/v1/auth/authenticate')).session_token);
  const outdated = await authenticate(world);
  await sleep(sessionTTL + 100);
  await assert.rejects(connect('/mcp/hirer', outdated), unauthorized);

  const platform = await sandbox(); // its sessions last for hours
  stopping(t)(platform.stop);
  const session = await authenticate(platform);
  const client = await connect('/mcp/hirer', session, platform.url);
  await call(client, 'list_agents');
  await request(platform, session, 'DELETE', '/api/v1/auth/logout');
  await assert.rejects(call(client, 'list_agents'), unauthorized);
  await client.close();
});
