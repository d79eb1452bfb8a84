// Prism as a validating proxy before the embedded platform.
import { readFile } from 'node:fs/promises';
import { bin, documentJSON, documentYAML, start } from './tools.mjs';

const methods = ['get', 'post', 'put', 'patch', 'delete'];

/** operations are those of the document, as {name, method, path, parameters, ...}. */
export async function operations() {
  const { paths, components } = JSON.parse(await readFile(documentJSON, 'utf8'));
  const resolve = (it) => (it.$ref ? components.parameters[it.$ref.split('/').pop()] : it);
  return Object.entries(paths).flatMap(([path, item]) =>
    methods.filter((method) => item[method]).map((method) => ({
      ...item[method],
      name: `${method.toUpperCase()} ${path}`,
      method: method.toUpperCase(),
      path,
      parameters: [...(item.parameters ?? []), ...(item[method].parameters ?? [])].map(resolve),
    })),
  );
}

/** Proxy sends requests through prism and collects what prism finds wrong. */
export class Proxy {
  violations = [];
  seen = new Map(); // of each operation, the statuses with their codes
  #url;

  /** Starts prism before url. The kernel picks its port. */
  static async open(t, url) {
    const proxy = new Proxy();
    for await (const line of start(t, bin('prism'), ['proxy', documentYAML, url, '--host', '127.0.0.1', '--port', '0'])) {
      proxy.#url = line.match(/Prism is listening on (http:\S+)/)?.[1];
      if (proxy.#url) return proxy;
    }
    throw new Error('prism ended');
  }

  /** Calls an operation and expects a status, and a code if there is one. It returns data, or the text of a file. */
  async call(operation, { id, credential_id, query = '', headers = {}, body, status, code }) {
    const path = operation.path.replace('{id}', encodeURIComponent(id)).replace('{credential_id}', encodeURIComponent(credential_id));
    const response = await fetch(this.#url + path + query, {
      method: operation.method,
      headers: { ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      redirect: 'error',
    });
    const text = await response.text();
    const file = !response.headers.get('content-type')?.startsWith('application/json');
    const answer = file ? { data: text } : JSON.parse(text);
    const got = answer.errors?.[0]?.code;
    const outcome = [response.status, got].filter(Boolean).join(' ');
    if (response.status !== status || (code && got !== code)) {
      throw new Error(`${operation.name}: ${outcome}, want ${status} ${code ?? ''}: ${text.slice(0, 500)}`);
    }
    for (const violation of JSON.parse(response.headers.get('sl-violations') ?? '[]')) {
      // A request that is refused may well be wrong.
      if (response.ok || violation.location[0] !== 'request') this.violations.push(`${operation.name}: ${outcome}: ${JSON.stringify(violation)}`);
    }
    this.seen.set(operation.name, (this.seen.get(operation.name) ?? new Set()).add(outcome));
    return answer.data ?? answer; // the document has no envelope
  }
}
