// Every operation of the API document, with each of its outcomes, as prism sees it: the
// embedded platform violates the document nowhere.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { operations, Proxy } from './prism.mjs';
import { agrenting, sandbox } from './tools.mjs';

const none = '00000000-0000-4000-8000-000000000000';
const all = await operations();
const named = (name) => all.find((operation) => operation.name === name) ?? assert.fail(`no ${name} in the document`);
const unserved = 'POST /auth/authenticate'; // the sandbox serves the versioned path
const served = all.filter((operation) => operation.name !== unserved);

// Who calls an operation: its user, or the agent with its key.
const schemes = (operation) => operation.security.map((s) => Object.keys(s));
const isOpen = (operation) => operation.security.length === 0;
const isOptional = (operation) => schemes(operation).some((s) => s.length === 0);
const isForUsers = (operation) => !isOpen(operation) && schemes(operation).every((s) => s.some((name) => name.startsWith('userToken')));
const isForKeys = (operation) => !isOpen(operation) && schemes(operation).flat().every((name) => name.startsWith('apiKey'));

// Operations that no scope is needed for.
const unscoped = ['POST /api/v1/agents/register', 'POST /api/v1/agents', 'DELETE /api/v1/auth/logout', 'POST /api/v1/auth/authenticate'];

// Bodies with which a request gets as far as its path.
const bodies = {
  'PATCH /api/v1/agents/{id}': { agent: { description: 'x' } },
  'POST /api/v1/agents/{id}/hire': { task_description: 'x', capability_requested: 'writing', price: '1' },
  'POST /api/v1/hirings/{id}/messages': { content: 'x' },
  'POST /api/v1/hirings/{id}/result': { output: 'x' },
  'POST /api/v1/hirings/{id}/failure': { reason: 'x' },
  'POST /api/v1/tasks/{id}/messages': { message: 'x' },
};

// The operations for agents, in batches of at most ten.
const authenticate = 'POST /api/v1/auth/authenticate';
const forAgents = [];
for (const operation of served.filter((o) => !isOpen(o) && !isForUsers(o) && o.name !== authenticate)) {
  if (!(forAgents.at(-1)?.length < 10)) forAgents.push([]);
  forAgents.at(-1).push(operation);
}

const key = (secret) => ({ 'X-API-Key': secret });
const bearer = (token) => ({ Authorization: `Bearer ${token}` });

test('prism finds no violation', { timeout: 300_000 }, async (t) => {
  const program = await agrenting(t);
  const [platform, tight] = await Promise.all([
    sandbox(t, program, '--no-rate-limits'),
    sandbox(t, program, '--request-limit', '1', '--auth-limit', '1', '--agents', String(forAgents.length)),
  ]);
  const [proxy, limited] = await Promise.all([Proxy.open(t, platform.url), Proxy.open(t, tight.url)]);
  const [scribe, scout, toy] = platform.agents;
  const user = bearer(platform.user_token);
  const agent = key(scribe.key);
  const asScribe = { ...user, 'X-Agent-ID': scribe.id };
  const call = (name, options) => proxy.call(named(name), { status: 200, ...options });

  await t.test('success', async () => {
    await call('GET /api/v1/health', {});
    await call('GET /api/v1/health/readiness', {});
    assert.equal((await call('GET /api/v1/openapi.json', {})).openapi, '3.1.0');

    const { session_token: session } = await call('POST /api/v1/auth/authenticate', { headers: key(scout.key) });
    await call('GET /api/v1/agents', { headers: bearer(session) });
    await call('DELETE /api/v1/auth/logout', { headers: bearer(session) });
    await call('POST /api/v1/auth/authenticate', { headers: { 'Api-Key': scout.key } });

    const profile = { name: 'New', did: 'did:agrenting:new', capabilities: ['search'], pricing_model: 'fixed', base_price: '1.50' };
    const { agent: added, api_key: first } = await call('POST /api/v1/agents/register', { body: { agent: profile }, status: 201 });
    await call('POST /api/v1/agents/register', { body: { name: 'Flat', sandbox: true }, status: 201 });
    await call('POST /api/v1/agents', { headers: user, body: { agent: { ...profile, did: 'did:agrenting:owned' } }, status: 201 });
    const replay = { headers: { ...key(first), 'X-Idempotency-Key': 'rotation' }, body: {} };
    const { api_key: second } = await call('POST /api/v1/auth/rotate-key', replay);
    await call('PATCH /api/v1/agents/{id}', { id: added.id, headers: key(second), body: { agent: { base_price: 2, metadata: { a: 1 } } } });
    await call('GET /api/v1/agents', { query: '?status=active&capability=writing&limit=1' });
    await call('GET /api/v1/tasks', { headers: { 'Api-Key': scout.key } });
    await call('GET /api/v1/agents/mine', { headers: user, query: '?limit=1' });
    await call('GET /api/v1/agents/discover', { headers: user, query: '?capability=writing&min_price=1&sort_by=price&limit=5' });
    await call('GET /api/v1/capabilities', {});
    await call('GET /api/v1/agents/{id}', { id: scout.did });
    await call('GET /api/v1/agents/{id}', { id: added.id });

    const issued = await call('POST /api/v1/agents/{id}/credentials', { id: scribe.id, headers: agent, body: { name: 'k' }, status: 201 });
    await call('GET /api/v1/agents/{id}/credentials', { id: scribe.id, headers: agent });
    const gone = { id: scribe.id, credential_id: issued.id, headers: agent };
    await call('DELETE /api/v1/agents/{id}/credentials/{credential_id}', gone);
    await call('GET /api/v1/agents/{id}/credentials', { id: scribe.id, headers: user });
    const token = await call('POST /api/v1/user/tokens', { headers: user, body: { name: 'ci', scopes: ['read'], expires_in: 60 }, status: 201 });
    await call('GET /api/v1/user/tokens', { headers: user });
    await call('DELETE /api/v1/user/tokens/{id}', { id: token.id, headers: user });

    const ask = (body) => call('POST /api/v1/tasks', { headers: user, body, status: 201 });
    const { id } = await ask({ provider_agent_id: scribe.did, capability: 'writing', input: 'x', external_client: true });
    await ask({ title: 't', description: 'd', required_capabilities: ['writing'], price: '1', deadline: '2027-01-01' });
    await ask({ capability: 'unknown', input: { x: 1 }, max_price: '1', execution_mode: 'auto' });
    const { id: done } = await ask({ agent_id: toy.id, task_type: 'writing', input: null });
    await call('GET /api/v1/tasks/{id}', { id: done, headers: user }); // with a simulated result
    await call('GET /api/v1/tasks', { headers: asScribe, query: '?limit=1' });
    await call('GET /api/v1/tasks/pending', { headers: agent });
    await call('POST /api/v1/tasks/{id}/messages', { id, headers: user, body: { message: 'x', message_type: 'question' }, status: 201 });
    await call('POST /api/v1/tasks/{id}/messages', { id, headers: agent, body: { message: 'y' }, status: 201 });
    await call('GET /api/v1/tasks/{id}/messages', { id, headers: agent });
    const pay = { id, headers: { ...user, 'X-Idempotency-Key': 'pay' }, body: { payment_type: 'crypto' } };
    await call('POST /api/v1/tasks/{id}/payments', { ...pay, status: 201 });
    await call('POST /api/v1/tasks/{id}/payments', pay); // a replay has 200
    await call('GET /api/v1/tasks/{id}/payments', { id, headers: agent });
    await call('POST /api/v1/tasks/{id}/cancel', { id, headers: user });
    await call('POST /api/v1/tasks/{id}/reassign', { id, headers: user, body: { new_provider_agent_did: scout.did } });
    for (const part of ['', '/timeline', '/attempts']) await call(`GET /api/v1/tasks/{id}${part}`, { id, headers: user });

    const file = { name: 'a.txt', content: 'aGVsbG8=', content_type: 'text/plain', document_type: 'patch', task_id: id };
    await call('POST /api/v1/uploads', { headers: user, body: file, status: 201 });
    const document = await call('POST /api/v1/documents', { headers: user, body: file, status: 201 });
    assert.equal(await call('GET /api/v1/documents/{id}/download', { id: document.id, headers: user }), 'hello');

    const hire = (who, more) => call('POST /api/v1/agents/{id}/hire', {
      id: who.did, headers: user, status: 201,
      body: { task_description: 'd', capability_requested: 'writing', price: '8.50', delivery_mode: 'output', task_input: { a: 1 }, ...more },
    });
    const { hiring } = await hire(scribe, { client_idempotency_key: 'one', client_message: 'm' });
    const at = { id: hiring.id, headers: user };
    const worker = { id: hiring.id, headers: agent };
    await call('GET /api/v1/hirings/pending', { headers: agent });
    await call('POST /api/v1/hirings/{id}/messages', { ...worker, body: { content: 'x' }, status: 201 });
    await call('POST /api/v1/hirings/{id}/messages', { ...at, body: { content: 'y' }, status: 201 });
    await call('POST /api/v1/hirings/{id}/failure', { ...worker, body: { error: 'e', reason: 'timeout' } });
    await call('POST /api/v1/hirings/{id}/retry', { ...at, body: { reason: 'again' } });
    const artifacts = [{ name: 'a.txt', content: 'aGVsbG8=', content_type: 'text/plain' }];
    await call('POST /api/v1/hirings/{id}/result', { ...worker, body: { output: { summary: 's' }, trace_attempt: 2, artifacts } });
    await call('POST /api/v1/hirings/{id}/revision', { ...at, body: { reason: 'shorter' } });
    await call('POST /api/v1/hirings/{id}/cancel', at);
    const read = await call('GET /api/v1/hirings/{id}', worker);
    assert.equal(await call('GET /api/v1/artifacts/{id}/download', { id: read.artifacts[0].id, headers: user }), 'hello');
    await hire(toy, {});
    await call('GET /api/v1/hirings', { headers: user, query: '?limit=1&page=2' });
    await call('GET /api/v1/hirings', { headers: key(platform.user_token), query: '?status=completed' });

    await call('POST /api/v1/ledger/deposit', { headers: user, body: { amount: '5', currency: 'USD', payment_method: 'crypto' }, status: 201 });
    await call('POST /api/v1/ledger/withdraw', { headers: user, body: { amount: 1.5, withdrawal_address_id: 'a' }, status: 201 });
    await call('POST /api/v1/payments/create-intent', { headers: user, body: { amount: '5', payment_type: 'crypto' }, status: 201 });
    await call('GET /api/v1/ledger/balance', { headers: user });
    await call('GET /api/v1/ledger/transactions', { headers: user, query: '?type=deposit' });

    await call('POST /api/v1/webhooks', { headers: user, body: { url: 'https://example.org/a', events: ['task.completed'], secret: 's' }, status: 201 });
    const hook = await call('POST /api/v1/webhooks', { headers: user, body: { callback_url: 'https://example.org/b', event_types: ['task.failed'] }, status: 201 });
    await call('GET /api/v1/webhooks', { headers: user });
    await call('DELETE /api/v1/webhooks/{id}', { id: hook.id, headers: user });
  });

  await t.test('401 without a credential, and with an unknown one', async () => {
    const options = { id: none, credential_id: none, status: 401, code: 'UNAUTHORIZED' };
    for (const operation of served.filter((o) => !isOpen(o))) {
      if (!isOptional(operation)) await proxy.call(operation, options);
      await proxy.call(operation, { ...options, headers: key('unknown') });
      await proxy.call(operation, { ...options, headers: { ...agent, ...user } });
    }
  });

  await t.test('403 for the wrong kind of credential, and for a missing scope', async () => {
    const options = { id: scribe.id, credential_id: none, status: 403, code: 'FORBIDDEN' };
    const { token } = await call('POST /api/v1/user/tokens', { headers: user, body: { name: 'n', scopes: ['other:write'] }, status: 201 });
    for (const operation of served.filter((o) => !isOpen(o))) {
      if (isForUsers(operation)) await proxy.call(operation, { ...options, headers: agent });
      if (isForKeys(operation)) await proxy.call(operation, { ...options, headers: user });
      if (!unscoped.includes(operation.name)) {
        await proxy.call(operation, { ...options, headers: { ...bearer(token), 'X-Agent-ID': scribe.id } });
      }
    }
  });

  await t.test('404 for an unknown path, agent, and object', async () => {
    await proxy.call(named(unserved), { status: 404, code: 'ROUTE_NOT_FOUND' });
    const options = { id: none, credential_id: none, status: 404, code: 'NOT_FOUND' };
    for (const operation of served.filter((o) => o.path.includes('{'))) {
      await proxy.call(operation, { ...options, headers: isForUsers(operation) ? user : asScribe, body: bodies[operation.name] });
    }
    await proxy.call(named('GET /api/v1/tasks'), { ...options, headers: { ...user, 'X-Agent-ID': none } });
  });

  await t.test('409 for a hire with the key of another one', async () => {
    const body = { task_description: 'other', capability_requested: 'writing', price: '1', client_idempotency_key: 'one' };
    await call('POST /api/v1/agents/{id}/hire', { id: scribe.did, headers: user, body, status: 409, code: 'IDEMPOTENCY_CONFLICT' });
  });

  await t.test('413 for a body that is too large', async () => {
    await call('POST /api/v1/tasks', { headers: agent, body: { input: 'x'.repeat(1 << 20) }, status: 413, code: 'VALIDATION_ERROR' });
  });

  await t.test('422 for a body, a parameter, an agent, and an idempotency key', async () => {
    const options = { credential_id: none, status: 422, code: 'VALIDATION_ERROR' };
    const task = { provider_agent_id: scout.id, capability: 'writing', input: 1 };
    const { id: taskID } = await call('POST /api/v1/tasks', { headers: agent, body: task, status: 201 });
    for (const operation of served) {
      options.id = operation.path.startsWith('/api/v1/tasks/') ? taskID : scribe.id;
      const headers = isForUsers(operation) ? user : asScribe;
      const has = (name) => operation.parameters.some((p) => p.name === name);
      if (operation.requestBody) await proxy.call(operation, { ...options, headers, body: [] });
      if (has('limit')) await proxy.call(operation, { ...options, headers, query: '?limit=101' });
      if (schemes(operation).some((s) => s.includes('actingAgent'))) {
        await proxy.call(operation, { ...options, headers: { ...user, 'X-Agent-ID': 'none' } });
      }
      if (operation.requestBody && has('X-Idempotency-Key')) {
        const keyed = { ...headers, 'X-Idempotency-Key': 'other body' };
        await proxy.call(operation, { ...options, headers: keyed, body: [] });
        await proxy.call(operation, { ...options, headers: keyed, body: [1], code: 'IDEMPOTENCY_MISMATCH' });
      }
    }
    const money = { headers: user, body: { amount: '1000000' }, status: 422, code: 'INSUFFICIENT_BALANCE' };
    await call('POST /api/v1/ledger/withdraw', money);
    await call('POST /api/v1/ledger/deposit', { ...money, body: { amount: '-1' }, code: 'INVALID_AMOUNT' });
  });

  await t.test('429 for everything', async () => {
    // A spent allowance is renewed after a minute, so each batch spends another one.
    const batch = async (name, headers, operations, { id } = tight.agents[0]) => {
      await limited.call(named(name), { headers, status: 200 });
      for (const operation of operations) {
        await limited.call(operation, { id, credential_id: none, headers, status: 429, code: 'RATE_LIMIT_EXCEEDED' });
      }
    };
    await batch('GET /api/v1/health', {}, served.filter(isOpen));
    await batch('GET /api/v1/user/tokens', bearer(tight.user_token), served.filter(isForUsers));
    await batch(authenticate, key(tight.agents[0].key), [named(authenticate)]);
    for (const [i, operations] of forAgents.entries()) {
      await batch('GET /api/v1/ledger/balance', key(tight.agents[i].key), operations, tight.agents[i]);
    }
  });

  await t.test('503 if no agent has the capability', async () => {
    const { id } = await call('POST /api/v1/tasks', { headers: agent, body: { capability: 'unknown', input: 1, execution_mode: 'auto' }, status: 201 });
    await call('POST /api/v1/tasks/{id}/cancel', { id, headers: agent });
    await call('POST /api/v1/tasks/{id}/reassign', { id, headers: agent, status: 503, code: 'AGENT_UNAVAILABLE' });
  });

  const outcomes = [...proxy.seen.values(), ...limited.seen.values()].reduce((n, set) => n + set.size, 0);
  t.diagnostic(`${outcomes} outcomes of ${all.length} operations`);
  assert.deepEqual([...proxy.violations, ...limited.violations], []);
  const succeeded = (operation) => [...(proxy.seen.get(operation.name) ?? [])].some((outcome) => outcome < '300');
  assert.deepEqual(all.filter((operation) => !succeeded(operation)).map((operation) => operation.name), [unserved]);
});
