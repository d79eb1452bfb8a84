// Every call of the official adapter, @agrentingai/paperclip-adapter 0.4.0.
//
// user and agent are what the platform answers to a user token, and to an agent's key or
// session: the status, and the error code of a refusal. Hiring is for users (hire:create,
// hirings:read); tasks, documents, and money are for both. "issues" marks a call whose
// answer has a new secret in it, which the proxy refuses without --allow-issuing.
//
// run makes the call. x is what the calls share, and what the world (see world.mjs) has
// prepared. check throws if the value is not what the adapter documents in its types.
import { strict as assert } from 'node:assert';

const forbidden = '403 FORBIDDEN';

export const calls = [
  // money
  {
    name: 'testConnection', http: 'GET /api/v1/ledger/balance', user: 200, agent: 200,
    run: (c) => c.testConnection(),
    check: (v) => {
      assert.equal(v.ok, true);
      assert.match(v.message, /^Connected\. Balance: \d+\.\d\d USD \(Available: \d+\.\d\d\)$/);
    },
  },
  {
    name: 'deposit', http: 'POST /api/v1/ledger/deposit', user: 201, agent: 201,
    run: (c) => c.deposit({ amount: '25.00' }),
    check: (v) => assert.deepEqual({ ...v, transaction_id: typeof v.transaction_id }, { transaction_id: 'string', status: 'completed' }),
  },
  {
    name: 'withdraw', http: 'POST /api/v1/ledger/withdraw', user: 201, agent: 201,
    run: (c) => c.withdraw({ amount: '5.25', withdrawalAddressId: 'w-1' }),
    check: (v) => assert.deepEqual({ ...v, transaction_id: typeof v.transaction_id }, { transaction_id: 'string', status: 'pending' }),
  },
  {
    name: 'getTransactions', http: 'GET /api/v1/ledger/transactions?limit=1&type=deposit', user: 200, agent: 200,
    run: (c) => c.getTransactions({ type: 'deposit', limit: 1 }),
    check: (v) => {
      assert.equal(v.length, 1);
      assert.equal(v[0].type, 'deposit');
      assert.equal(v[0].amount, '25.00');
      assert.equal(v[0].currency, 'USD');
    },
  },
  {
    name: 'createPaymentIntent', http: 'POST /api/v1/payments/create-intent', user: 201, agent: 201,
    run: (c) => c.createPaymentIntent({ amount: '10.00' }),
    check: (v) => assert.equal(v.status, 'pending'),
  },
  {
    name: 'getBalance', http: 'GET /api/v1/ledger/balance', user: 200, agent: 200,
    run: (c) => c.getBalance(),
    check: (v) => {
      assert.equal(v.currency, 'USD');
      assert.equal(cents(v.available) + cents(v.escrow), cents(v.total));
    },
  },

  // agents
  {
    name: 'listCapabilities', http: 'GET /api/v1/capabilities', user: 200, agent: 200,
    run: (c) => c.listCapabilities(),
    check: (v) => assert.ok(v.find(({ name }) => name === 'writing').agent_count >= 3),
  },
  {
    name: 'discoverAgents', user: 200, agent: 200,
    http: 'GET /api/v1/agents/discover?capability=writing&max_price=3.00&sort_by=reputation&limit=20',
    run: (c) => c.discoverAgents({ capability: 'writing', maxPrice: 3, sortBy: 'reputation', limit: 20 }),
    check: (v, x) => assert.equal(v.find(({ did }) => did === x.worker.did).price_per_task, '2.50'),
  },
  {
    name: 'listAgentsByCapability', http: 'GET /api/v1/agents?capability=writing', user: 200, agent: 200,
    run: (c) => c.listAgentsByCapability('writing'),
    check: (v, x) => assert.ok(v.some(({ did }) => did === x.worker.did)),
  },
  {
    name: 'getAgentProfile', http: 'GET /api/v1/agents/{worker.did}', user: 200, agent: 200,
    run: (c, x) => c.getAgentProfile(x.worker.did),
    check: (v, x) => {
      assert.equal(v.id, x.worker.id);
      assert.deepEqual(v.capabilities, ['writing']);
      assert.equal(v.base_price, '2.50'); // execute() takes no number
    },
  },

  // tasks
  {
    name: 'createTask', http: 'POST /api/v1/tasks', user: 201, agent: 201,
    run: async (c, x) => {
      const task = await c.createTask({ providerAgentId: x.worker.did, capability: 'writing', input: 'Write.', maxPrice: '1.50' });
      x.task = task.id;
      return task;
    },
    check: (v, x) => {
      assert.equal(v.status, 'pending');
      assert.equal(v.provider_agent_id, x.worker.id);
      assert.equal(v.client_agent_id, x.actor.agent);
      assert.equal(v.input, 'Write.');
    },
  },
  {
    name: 'getTask', http: 'GET /api/v1/tasks/{task}', user: 200, agent: 200,
    run: (c, x) => c.getTask(x.task),
    check: (v) => assert.equal(v.status, 'pending'),
  },
  {
    name: 'getTaskProgress', http: 'GET /api/v1/tasks/{task}', user: 200, agent: 200,
    run: (c, x) => c.getTaskProgress(x.task),
    check: (v) => {
      assert.equal(v.status, 'pending');
      assert.equal(v.progress_percent, 0);
    },
  },
  {
    name: 'sendMessageToTask', http: 'POST /api/v1/tasks/{task}/messages', user: 201, agent: 201,
    run: (c, x) => c.sendMessageToTask(x.task, { message: 'In red, please.' }),
    check: (v) => assert.ok(v.message_id),
  },
  {
    name: 'getTaskMessages', http: 'GET /api/v1/tasks/{task}/messages', user: 200, agent: 200,
    run: (c, x) => c.getTaskMessages(x.task),
    check: (v) => assert.deepEqual(v.map((m) => [m.content, m.message_type]), [['In red, please.', 'instruction']]),
  },
  {
    name: 'createTaskPayment', http: 'POST /api/v1/tasks/{task}/payments', user: 201, agent: 201,
    run: (c, x) => c.createTaskPayment(x.task, { paymentType: 'escrow' }),
    check: (v) => assert.deepEqual([v.amount, v.currency, v.payment_type], ['1.50', 'USD', 'escrow']),
  },
  {
    name: 'getTaskPayment', http: 'GET /api/v1/tasks/{task}/payments', user: 200, agent: 200,
    run: (c, x) => c.getTaskPayment(x.task),
    check: (v) => assert.equal(v.amount, '1.50'),
  },
  {
    name: 'getTaskTimeline', http: 'GET /api/v1/tasks/{task}/timeline', user: 200, agent: 200,
    run: (c, x) => c.getTaskTimeline(x.task),
    check: (v) => assert.equal(v.events[0].event_type, 'task.created'),
  },
  {
    name: 'getTaskAttempts', http: 'GET /api/v1/tasks/{task}/attempts', user: 200, agent: 200,
    run: (c, x) => c.getTaskAttempts(x.task),
    check: (v) => assert.equal(v.attempts.length, 1),
  },
  {
    name: 'uploadDocument', http: 'POST /api/v1/uploads', user: 201, agent: 201,
    run: (c, x) => c.uploadDocument({ name: 'notes.txt', content: 'Grüße', taskId: x.task }),
    check: (v, x) => assert.deepEqual([v.name, v.document_type, v.task_id], ['notes.txt', 'instructions', x.task]),
  },
  {
    name: 'cancelTask', http: 'POST /api/v1/tasks/{task}/cancel', user: 200, agent: 200,
    run: (c, x) => c.cancelTask(x.task),
    check: (v) => assert.equal(v.status, 'cancelled'),
  },
  {
    name: 'reassignTask', http: 'POST /api/v1/tasks/{task}/reassign', user: 200, agent: 200,
    run: (c, x) => c.reassignTask(x.task, x.other.did),
    check: (v, x) => assert.deepEqual([v.previous_agent_did, v.new_agent_did], [x.worker.did, x.other.did]),
  },

  // webhooks
  {
    name: 'registerWebhook', http: 'POST /api/v1/webhooks', user: 201, agent: 201, issues: true,
    run: (c) => c.registerWebhook({ callbackUrl: 'https://hooks.example.com/agrenting' }),
    check: (v) => {
      assert.equal(v.callback_url, 'https://hooks.example.com/agrenting');
      assert.ok(v.event_types.includes('task.completed'));
      assert.ok(v.secret_key.length >= 16);
    },
  },
  {
    name: 'listWebhooks', http: 'GET /api/v1/webhooks', user: 200, agent: 200,
    run: (c) => c.listWebhooks(),
    check: (v, x) => assert.ok(v.some(({ id, secret_key: secret }) => id === x.webhook && secret === undefined)),
  },
  {
    name: 'deleteWebhook', http: 'DELETE /api/v1/webhooks/{webhook}', user: 200, agent: 200,
    run: (c, x) => c.deleteWebhook(x.webhook),
  },

  // hirings
  {
    name: 'hireAgent', http: 'POST /api/v1/agents/{worker.did}/hire', user: 201, agent: forbidden,
    run: async (c, x) => {
      const hired = await c.hireAgent(x.worker.did, hire);
      x.hired = hired.hiring.id;
      return hired;
    },
    check: (v, x) => {
      assert.equal(v.hiring.status, 'paid');
      assert.equal(v.hiring.price, '8.50');
      assert.equal(v.config.agentDid, x.worker.did);
    },
  },
  {
    // The same client_idempotency_key: the same hiring.
    name: 'hireAgent', http: 'POST /api/v1/agents/{worker.did}/hire', user: 200, agent: forbidden,
    run: (c, x) => c.hireAgent(x.worker.did, hire),
    check: (v, x) => assert.equal(v.hiring.id, x.hired),
  },
  {
    name: 'listHirings', http: 'GET /api/v1/hirings?status=paid&limit=10&page=1', user: 200, agent: forbidden,
    run: (c) => c.listHirings({ status: 'paid', limit: 10, offset: 5 }),
    check: (v, x) => {
      assert.ok(v.some(({ id }) => id === x.hired));
      assert.ok(v.every(({ status }) => status === 'paid'));
    },
  },
  {
    name: 'getHiring', http: 'GET /api/v1/hirings/{hiring}', user: 200, agent: 200,
    run: (c, x) => c.getHiring(x.hiring),
    check: (v, x) => assert.deepEqual([v.id, v.task_description], [x.hiring, 'Compare.']),
  },
  {
    name: 'sendMessageToHiring', http: 'POST /api/v1/hirings/{hiring}/messages', user: 201, agent: 201,
    run: (c, x) => c.sendMessageToHiring(x.hiring, 'How far is it?'),
    check: (v, x) => assert.equal(v.hiring_id, x.hiring),
  },
  {
    name: 'getHiringMessages', http: 'GET /api/v1/hirings/{hiring}', user: 200, agent: 200,
    run: (c, x) => c.getHiringMessages(x.hiring),
    check: (v, x) => assert.deepEqual(v.map((m) => [m.content, m.sender_type]), [['How far is it?', x.actor.agent ? 'agent' : 'client']]),
  },
  {
    name: 'retryHiring', http: 'POST /api/v1/hirings/{failed}/retry', user: 200, agent: forbidden,
    run: (c, x) => c.retryHiring(x.failed, { reason: 'once more' }),
    check: (v, x) => assert.deepEqual([v.id, v.status], [x.failed, 'queued']),
  },
  {
    name: 'cancelHiring', http: 'POST /api/v1/hirings/{failed}/cancel', user: 200, agent: forbidden,
    run: (c, x) => c.cancelHiring(x.failed),
    check: (v) => assert.equal(v.status, 'cancelled'),
  },
];

const hire = {
  taskDescription: 'Write.', capabilityRequested: 'writing', price: '8.50', clientIdempotencyKey: 'run-1', taskInput: { tone: 'dry' },
};

function cents(amount) {
  assert.match(amount, /^\d+\.\d\d$/);
  return Number(amount.replace('.', ''));
}

/** The request of a call, with the values of x in place of {names}. */
export function requestOf(call, x) {
  return call.http.replace(/\{([a-z.]+)\}/g, (_, path) => encodeURIComponent(path.split('.').reduce((v, name) => v[name], x)));
}
