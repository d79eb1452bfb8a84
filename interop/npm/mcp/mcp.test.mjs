// The official TypeScript MCP client against the sandbox: directly, and through the proxy
// while sessions of 1.5 s end and are renewed.
//
//   AGRENTING=program node --test mcp/mcp.test.mjs
//
// Without AGRENTING, the command line is built from this checkout.
import { strict as assert } from 'node:assert';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const sessionTTL = 1500;
const folder = mkdtempSync(join(tmpdir(), 'agrenting-mcp-'));
let program = process.env.AGRENTING && resolve(process.env.AGRENTING);
const running = [];
let world;
let proxyURL;

/** Starts the program, and returns what it prints as JSON once it serves. */
async function start(env, ...args) {
  const child = spawn(program, ['--json', ...args], { env: { PATH: process.env.PATH, HOME: folder, ...env } });
  running.push(child);
  let out = '';
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text) => (log += text));
  child.stdout.setEncoding('utf8');
  for await (const text of child.stdout) {
    out += text;
    try {
      const value = JSON.parse(out);
      child.stdout.resume();
      return value;
    } catch {
      // more is to come
    }
  }
  throw new Error(`agrenting ${args[0]} has ended: ${log}`);
}

before(async () => {
  if (!program) {
    program = join(folder, 'agrenting');
    execFileSync('go', ['build', '-o', program, './cmd/agrenting'], { cwd: fileURLToPath(new URL('../../..', import.meta.url)), stdio: 'inherit' });
  }
  world = await start({}, 'sandbox', '--session-ttl', `${sessionTTL}ms`, '--no-rate-limits');
  const { url } = await start(world.env, 'proxy', '--session');
  proxyURL = url;
});

after(async () => {
  await Promise.all(running.map((child) => child.exitCode ?? new Promise((ended) => {
    child.on('exit', ended);
    child.kill('SIGINT');
  })));
  rmSync(folder, { recursive: true, force: true });
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
  test(`300 calls of ${path} through the proxy, with sessions that end`, { timeout: 120_000 }, async () => {
    const client = await connect(path, bearer('ap_placeholder_0000000000'), proxyURL);
    const began = Date.now();
    const failures = [];
    let calls = 0;
    for (; calls < 300 || Date.now() - began < 4 * sessionTTL; calls++) {
      try {
        assert.equal((await call(client, 'list_agents', { limit: 5 })).agents.length, 2);
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
  const [scribe] = world.agents;
  for (const path of ['/mcp/hirer', '/mcp/hirer/sse']) {
    const user = await connect(path, bearer(world.user_token));
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
  const user = await connect('/mcp/hirer', bearer(world.user_token));
  const { hiring } = await call(user, 'hire_agent', {
    agent_did: world.agents[0].did, capability_requested: 'writing', task_description: 'a poem', price: '2.50',
  });
  const agent = await connect('/mcp/sse', {}, proxyURL);
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
test('a session has ended after its time', { timeout: 60_000 }, async () => {
  const headers = { 'X-API-Key': world.agents[0].key };
  const response = await fetch(`${world.url}/api/v1/auth/authenticate`, { method: 'POST', headers });
  const { data } = await response.json();
  const client = await connect('/mcp/hirer', bearer(data.session_token));
  await call(client, 'list_agents');
  await sleep(sessionTTL + 100);
  await assert.rejects(call(client, 'list_agents'), unauthorized);
  await client.close();
});
