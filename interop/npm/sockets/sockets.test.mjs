// The official Phoenix client at the sockets of the embedded platform.
import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import WebSocket from 'ws';
import { call, sandbox, stopping } from '../clients/programs.mjs';
import { connect, join, push, socketOf, soon } from './phoenix.mjs';

async function platformOf(t, ...flags) {
  const platform = await sandbox('--no-rate-limits', ...flags);
  stopping(t)(platform.stop);
  platform.user = { 'X-API-Key': platform.token };
  platform.hire = async () => (await call(platform, platform.user, 'POST', `/api/v1/agents/${platform.scribe.id}/hire`, {
    task_description: 'A poem', capability_requested: 'writing', price: '2.50',
  })).hiring.id;
  return platform;
}

const ok = { status: 'ok', response: {} };
const refused = (reason) => ({ status: 'error', response: { reason } });

for (const version of [1, 2]) {
  test(`an agent and its hirer follow a hiring (version ${version})`, async (t) => {
    const platform = await platformOf(t);
    const agent = await connect(t, platform, '/socket/agent', { api_key: platform.scribe.key }, { version });
    const hirer = await connect(t, platform, '/socket/hirer', { api_key: platform.token }, { version });
    const { id: agentID } = platform.scribe;
    const { owner_id: userID } = await call(platform, platform.user, 'GET', `/api/v1/agents/${agentID}`);
    const work = await join(agent, `agent:${agentID}`);
    const life = await join(hirer, `hirer:${userID}`);
    assert.deepEqual([work.answer, life.answer], [ok, ok]);

    const hiring = await platform.hire();
    for (const { events } of [work, life]) {
      const [event, payload] = await events.next();
      assert.deepEqual([event, payload.id, payload.status], ['hiring.created', hiring, 'paid']);
    }
    const stream = await join(hirer, `task_stream:${hiring}`);
    assert.deepEqual(stream.answer, ok);
    for (const content of ['Roses', ' are red']) {
      const emitted = push(work.channel.push('task.stream_chunk', { task_id: hiring, content, kind: 'token' }), 'a chunk');
      assert.deepEqual(await emitted, ok);
    }
    for (const [i, content] of ['Roses', ' are red'].entries()) {
      const [event, { timestamp, ...chunk }] = await stream.events.next();
      assert.deepEqual([event, chunk], ['stream.chunk', { seq: i + 1, content, kind: 'token', metadata: {} }]);
      assert.ok(Date.parse(timestamp) > 0);
    }
    await call(platform, { 'X-API-Key': platform.scribe.key }, 'POST', `/api/v1/hirings/${hiring}/result`, { result: { text: 'Roses are red' } });
    assert.equal((await life.events.next())[0], 'hiring.completed');
    assert.deepEqual((await stream.events.next())[0], 'stream.done');

    // Who joins later gets all of it.
    const late = await join(await connect(t, platform, '/socket/agent', { api_key: platform.scribe.key }, { version }), `task_stream:${hiring}`);
    const names = [];
    for (let i = 0; i < 3; i++) {
      names.push((await late.events.next())[0]);
    }
    assert.deepEqual(names, ['stream.chunk', 'stream.chunk', 'stream.done']);

    await push(stream.channel.leave(), 'leaving');
    assert.equal(stream.channel.state, 'closed');
  });
}

test('two agents share a task', async (t) => {
  const platform = await platformOf(t);
  const client = { 'X-API-Key': platform.scout.key };
  const { session_token: session } = await call(platform, { 'X-API-Key': platform.scribe.key }, 'POST', '/api/v1/auth/authenticate');
  const { id } = await call(platform, client, 'POST', '/api/v1/tasks', {
    provider_agent_id: platform.scribe.id, capability: 'writing', input: 'A poem',
  });
  const asProvider = await join(await connect(t, platform, '/socket', { session_token: session }), `task:${id}`);
  const asClient = await join(await connect(t, platform, '/socket', { api_key: platform.scout.key }), `task:${id}`);
  assert.deepEqual([asProvider.answer, asClient.answer], [ok, ok]);
  assert.deepEqual(await push(asClient.channel.push('input_stream', { chunk: 'more', seq: 1 }), 'input'), ok);
  assert.deepEqual(await asProvider.events.next(), ['input_stream', { chunk: 'more', seq: 1 }]);
  assert.deepEqual(await push(asProvider.channel.push('progress', { percent: 50, message: 'half' }), 'progress'), ok);
  assert.deepEqual(await asClient.events.next(), ['progress', { percent: 50, message: 'half' }]);
  assert.deepEqual(await push(asClient.channel.push('complete', { result: 'mine' }), 'a result of the client'), refused('unauthorized'));
  assert.deepEqual(await push(asProvider.channel.push('complete', { result: 'roses' }), 'the result'), ok);
  const [event, { task }] = await asClient.events.next();
  assert.deepEqual([event, task.id, task.status, task.output], ['task_completed', id, 'completed', 'roses']);
});

test('joins are refused', async (t) => {
  const platform = await platformOf(t);
  const agent = await connect(t, platform, '/socket/agent', { api_key: platform.scribe.key });
  for (const [topic, reason] of [
    [`agent:${platform.scout.id}`, 'unauthorized'],
    ['task_stream:unknown', 'unauthorized'],
    ['room:lobby', 'unmatched topic'],
  ]) {
    assert.deepEqual((await join(agent, topic)).answer, refused(reason), topic);
  }
});

test('handshakes are refused with 403', async (t) => {
  const platform = await platformOf(t);
  const { scribe, token } = platform;
  for (const [path, query] of [
    ['agent', 'vsn=2.0.0&api_key=unknown'],
    ['agent', 'vsn=2.0.0'],
    ['agent', `vsn=2.0.0&api_key=${token}`],
    ['hirer', `vsn=2.0.0&api_key=${scribe.key}`],
    ['agent', `vsn=3.0.0&api_key=${scribe.key}`],
  ]) {
    const ws = new WebSocket(`${platform.url}/socket/${path}/websocket?${query}`);
    const status = new Promise((resolve, reject) => {
      ws.on('unexpected-response', (request, response) => {
        response.resume();
        resolve(response.statusCode);
      });
      ws.on('open', () => reject(new Error('it is open')));
      ws.on('error', reject);
    });
    assert.equal(await soon(status, 'the refusal'), 403, `${path} ${query}`);
  }
  const record = socketOf(t, platform, '/socket/agent', { api_key: 'unknown' });
  const failed = new Promise((resolve) => record.socket.onError(resolve));
  record.socket.connect();
  await soon(failed, 'the error');
  assert.equal(record.opened, 0);
});

test('a client connects again with the next key', async (t) => {
  const platform = await platformOf(t);
  const credentials = `/api/v1/agents/${platform.scribe.id}/credentials`;
  const [first] = await call(platform, platform.user, 'GET', credentials);
  let key = platform.scribe.key;
  const agent = await connect(t, platform, '/socket/agent', () => ({ api_key: key }));
  const topic = `agent:${platform.scribe.id}`;
  const { channel, events } = await join(agent, topic);
  const again = new Promise((resolve) => agent.socket.onOpen(resolve));
  // The client may connect again before the revocation has been answered.
  const { api_key: next } = await call(platform, platform.user, 'POST', credentials, { name: 'next' });
  key = next;
  await call(platform, platform.user, 'DELETE', `${credentials}/${first.id}`);
  await soon(again, 'another connection');
  assert.deepEqual(agent.closes, [1001]);
  const rejoined = (async () => {
    while (channel.state !== 'joined') {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  })();
  await soon(rejoined, 'another join');
  const hiring = await platform.hire();
  const [event, payload] = await events.next();
  assert.deepEqual([event, payload.id], ['hiring.created', hiring]);
});

// The interval is also how long the client waits for each answer.
test('heartbeats are answered', async (t) => {
  const platform = await platformOf(t);
  const { socket, messages, closes } = await connect(t, platform, '/socket', { api_key: platform.scribe.key }, { heartbeatIntervalMs: 1000 });
  const beats = () => messages.filter(({ topic, event, payload }) => topic === 'phoenix' && event === 'phx_reply' && payload.status === 'ok').length;
  await soon(new Promise((resolve) => socket.onMessage(() => beats() >= 3 && resolve())), 'three heartbeats');
  assert.deepEqual(closes, []);
});

test('the sandbox closes sockets when it ends', async (t) => {
  const platform = await sandbox('--no-rate-limits');
  const { socket, closes } = await connect(t, platform, '/socket/agent', { api_key: platform.scribe.key }, { reconnectAfterMs: () => 60_000 });
  const closed = new Promise((resolve) => socket.onClose(resolve));
  await platform.stop();
  await soon(closed, 'the end');
  assert.deepEqual(closes, [1001]);
  assert.equal(platform.requests().filter(({ path, status }) => path === '/socket/agent/websocket' && status === 101).length, 1);
});
