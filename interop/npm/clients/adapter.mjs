// Makes every call of the official adapter, as a program that knows only a URL and what to
// send as its API key: from AGRENTING_URL and AGRENTING_API_KEY. Its first argument is the
// world as JSON (see world.mjs). It prints one JSON document: each call with its requests,
// its value or error, and what the calls share.
import { AgrentingClient, createServerAdapter } from '@agrentingai/paperclip-adapter';
import { calls } from './calls.mjs';

const x = JSON.parse(process.argv[2]);
const secret = process.env.AGRENTING_API_KEY ?? '';
const config = { agrentingUrl: process.env.AGRENTING_URL, apiKey: secret, agentDid: x.worker.did };

let requests = [];
const send = globalThis.fetch;
globalThis.fetch = async (url, options) => {
  const response = await send(url, options);
  const request = { request: `${options.method} ${url.slice(config.agrentingUrl.length)}`, status: response.status };
  if (!response.ok) {
    const { errors } = await response.clone().json();
    request.code = errors[0].code;
  }
  requests.push(request);
  return response;
};

async function record(name, run) {
  requests = [];
  const result = { name };
  try {
    result.value = (await run()) ?? null;
  } catch (error) {
    result.error = error.message;
  }
  return { ...result, requests };
}

const results = [];
const client = new AgrentingClient(config);
for (const { name, run } of calls) {
  results.push(await record(name, () => run(client, x)));
}

// The functions that make several calls. They write to the console.
Object.assign(console, { log: () => {}, warn: () => {}, error: () => {} });
const adapter = createServerAdapter();
const flows = {
  testEnvironment: () => adapter.testEnvironment({ adapterType: 'agrenting', config }),
  execute: async () => {
    const log = [];
    const result = await adapter.execute({
      runId: 'run-7', agent: { id: 'a', companyId: 'c', name: 'n' }, runtime: {},
      config: { ...config, agentDid: x.finisher.did, pollIntervalMs: 200, timeoutSec: 20 },
      context: { taskTitle: 'Summarize the report' },
      onLog: async (stream, text) => log.push(`${stream}: ${text.trim()}`),
    });
    return { ...result, log };
  },
  legacyTestEnvironment: () => adapter.legacyTestEnvironment(config),
  legacyExecute: () => adapter.legacyExecute({ ...config, agentDid: x.instant.did }, { input: 'Summarize.', capability: 'writing', maxPrice: '1.25' }),
  autoSelectAgent: () => adapter.autoSelectAgent(config, { capability: 'writing', taskDescription: 'Write.', maxPrice: '5.00' }),
};
for (const [name, run] of Object.entries(flows)) {
  results.push(await record(name, run));
}
process.stdout.write(JSON.stringify({ results, x }));
process.exit(0); // the adapter keeps a timer
