// A program that uses the types of the API document. It is compiled by tsc --strict and
// then run against the embedded platform: program.js URL KEY AGENT_ID.
import type { components, operations, paths, webhooks } from './platform.js';

type Method = 'get' | 'post' | 'put' | 'patch' | 'delete';
type Calls<M extends Method> = { [P in keyof paths]: paths[P][M] extends { responses: unknown } ? P : never }[keyof paths];
type JSONOf<R> = R extends { content: { 'application/json': infer B } } ? B : never;
type Success<O> = O extends { responses: infer R } ? JSONOf<R[Extract<keyof R, 200 | 201>]> : never;
type Body<O> = O extends { requestBody?: infer B } ? JSONOf<NonNullable<B>> : never;
type Failure = components['schemas']['ErrorResponse'];

declare const process: { argv: string[] };
const [, , base, key, agentID] = process.argv;
if (!base || !key || !agentID) throw new Error('usage: program.js URL KEY AGENT_ID');

async function call<M extends Method, P extends Calls<M>>(
  method: M, path: P, body?: Body<paths[P][M]>, id?: string,
): Promise<Success<paths[P][M]>> {
  const response = await fetch(base + path.replace('{id}', encodeURIComponent(id ?? '')), {
    method: method.toUpperCase(),
    headers: { 'X-API-Key': key ?? '', 'Content-Type': 'application/json' },
    body: body === undefined ? null : JSON.stringify(body),
  });
  const answer: unknown = await response.json();
  if (!response.ok) throw new Error((answer as Failure).errors.map((e) => `${e.code}: ${e.message}`).join(', '));
  return answer as Success<paths[P][M]>;
}

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

const session = await call('post', '/api/v1/auth/authenticate');
const token: string | undefined = session.data.session_token ?? session.data.token;
expect(token !== undefined, 'no session token');

const task = await call('post', '/api/v1/tasks', { provider_agent_id: agentID, capability: 'writing', input: { words: 3 } });
const status: components['schemas']['TaskStatus'] | undefined = task.data.status;
expect(status === 'pending', `status ${status}`);
const read = await call('get', '/api/v1/tasks/{id}', undefined, task.data.id);
expect(read.data.client_agent_id !== null && read.data.id === task.data.id, 'another task');

const agents = await call('get', '/api/v1/agents');
expect(agents.data.some((agent) => agent.id === agentID), 'the agent is not listed');

// What the platform sends has types too.
const delivery: webhooks['taskEvent']['post']['requestBody']['content']['application/json'] = { task_id: task.data.id, status: 'completed' };
const dispatch: operations['dispatchHiring']['requestBody']['content']['application/json'] = { hiring_id: 'h', dispatch_id: 'd', trace_attempt: 1, callback: 'https://agrenting.com/' };
expect(delivery.status === 'completed' && dispatch.type === undefined, 'deliveries');

// The types are strict: none of these compiles.
export const mistakes = [
  // @ts-expect-error no such path
  () => call('get', '/api/v1/unknown'),
  // @ts-expect-error no such method
  () => call('delete', '/api/v1/tasks'),
  // @ts-expect-error the member is misspelled
  () => call('post', '/api/v1/tasks', { provider: agentID }),
  // @ts-expect-error the price is required
  () => call('post', '/api/v1/agents/{id}/hire', { task_description: 'x' }),
  // @ts-expect-error no such status
  () => task.data.status === 'done',
  // @ts-expect-error it may be missing
  (): string => session.data.session_token,
  // @ts-expect-error it may be null
  (): string => task.data.provider_agent_id ?? null,
  // @ts-expect-error keys are listed without their secrets
  () => call('get', '/api/v1/agents/{id}/credentials').then((keys) => keys.data[0]?.api_key),
];
