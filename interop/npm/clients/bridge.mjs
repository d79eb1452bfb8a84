// Runs the official stdio bridge, agrenting-mcp 0.2.0, with the official MCP client.
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { environment } from './programs.mjs';

const program = join(dirname(createRequire(import.meta.url).resolve('agrenting-mcp/package.json')), 'dist/index.js');

/** Starts the bridge, optionally under another command. */
export async function bridge({ url, secret, under = [] }) {
  const [command, ...args] = [...under, process.execPath, program];
  const transport = new StdioClientTransport({
    command, args, stderr: 'pipe',
    env: environment({ AGRENTING_URL: url, AGRENTING_API_KEY: secret, AGRENTING_DEBUG: '1' }),
  });
  let log = '';
  transport.stderr.setEncoding('utf8');
  transport.stderr.on('data', (text) => (log += text));
  const client = new Client({ name: 'clients', version: '1' });
  await client.connect(transport).catch((error) => {
    throw new Error(`the bridge does not start: ${error.message}: ${log}`);
  });
  return {
    client,
    /** Calls a tool and returns its text. The bridge reports errors in the text, too. */
    tool: async (name, args) => (await client.callTool({ name, arguments: args })).content[0].text,
    /** The requests that the bridge has logged, such as "GET /api/v1/agents/discover 200". */
    requests: () => [...log.matchAll(/^\[agrenting-mcp\] (\S+ .+) → (\d+) \(\d+ms\)$/gm)].map(([, request, status]) => `${request} ${status}`),
    stop: () => {
      process.kill(transport.pid, 'SIGTERM'); // its connections would keep it for seconds
      return client.close();
    },
  };
}
