// Starts the command line's programs: the sandbox, the proxy, and short commands. Every
// program has its own home folder, and no variable of the caller's environment except PATH.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const agrenting = process.env.AGRENTING;
if (!agrenting) {
  throw new Error('AGRENTING is not set. Run "npm run clients", which builds the command line.');
}

/** Time that a program may take to start, and a command to end, in milliseconds. */
const patience = 30_000;

// What is left when this process ends is ended with it.
const leftovers = new Set();
process.on('exit', () => leftovers.forEach((end) => end()));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => process.exit(1));
}

/** A new folder, outside of any git repository, that goes away with this process. */
export function folder() {
  const path = mkdtempSync(join(tmpdir(), 'agrenting-clients-'));
  leftovers.add(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const home = folder();

/** The environment of a program: PATH, a home folder, and the given variables. */
export function environment(env = {}) {
  return { PATH: process.env.PATH, HOME: home, ...env };
}

/** Starts the command line with the arguments. */
function start(args, env, stdin = 'ignore') {
  const child = spawn(agrenting, args, { env: environment(env), stdio: [stdin, 'pipe', 'pipe'] });
  const kill = () => child.kill('SIGKILL');
  leftovers.add(kill);
  const program = { child, stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) {
    child[name].setEncoding('utf8');
    child[name].on('data', (text) => (program[name] += text));
  }
  program.ended = new Promise((resolve) => {
    child.on('error', (error) => resolve({ code: -1, error }));
    child.on('close', (code, signal) => {
      leftovers.delete(kill);
      resolve({ code, signal });
    });
  });
  return program;
}

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${patience / 1000} s`)), patience);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Starts a server and returns the JSON that it prints when it serves. */
async function serve(args, env) {
  const program = start([...args, '--json'], env);
  const ready = new Promise((resolve) => {
    program.child.stdout.on('data', () => {
      try {
        resolve(JSON.parse(program.stdout));
      } catch {
        // The rest follows.
      }
    });
  });
  const failed = program.ended.then(({ code, error }) => {
    throw new Error(`agrenting ${args[0]} has ended (${error ?? code}): ${program.stderr}`);
  });
  failed.catch(() => {});
  program.about = await within(Promise.race([ready, failed]), `agrenting ${args[0]}`);
  program.stop = async () => {
    program.child.kill('SIGTERM');
    const { code, signal } = await within(program.ended, `the end of agrenting ${args[0]}`);
    if (code !== 0) {
      throw new Error(`agrenting ${args[0]} ended with ${code ?? signal}: ${program.stderr}`);
    }
  };
  return program;
}

/** Starts an embedded platform. Its agents are Scribe, who waits for a worker, Scout and
 * Agent 3, who complete their work after a second, and Toy in the sandbox. */
export async function sandbox(...flags) {
  const program = await serve(['sandbox', '--agents', '3', '--verbose', ...flags], {});
  const { url, user_token: token, agents } = program.about;
  const [scribe, scout, third, toy] = agents;
  const requests = () => requestsOf(program.stderr);
  /** How often a request was answered with the status. */
  const count = (method, path, status) => requests().filter((r) => r.method === method && r.path === path && r.status === status).length;
  return { url, token, scribe, scout, third, toy, requests, count, stop: program.stop };
}

/** The requests in the log of a sandbox: method, path, and status. */
function requestsOf(log) {
  return [...log.matchAll(/msg=request method=(\S+) path=(\S+|"[^"\n]*") status=(\d+)/g)]
    .map(([, method, path, status]) => ({ method, path, status: Number(status) }));
}

/** Starts a proxy for a platform, with a credential that its callers do not see. */
export async function proxy(platform, credential, ...flags) {
  const env = { AGRENTING_URL: platform.url, AGRENTING_API_KEY: credential };
  const program = await serve(['proxy', ...flags], env);
  return { url: program.about.url, token: program.about.token, stop: program.stop };
}

/** The command and the arguments that run another command under "agrenting exec". */
export function exec(...flags) {
  return [agrenting, 'exec', ...flags, '--'];
}

/** Stops what a test has started, the last first, when the test ends. */
export function stopping(t) {
  const stops = [];
  t.after(async () => {
    for (const stop of stops.reverse()) {
      await stop();
    }
  });
  return (...more) => stops.push(...more);
}

/** Runs a command to its end, and returns what it printed as JSON. */
export async function command(env, ...args) {
  const program = start([...args, '--json'], env);
  const { code, error } = await within(program.ended, `agrenting ${args[0]}`);
  if (code !== 0) {
    throw new Error(`agrenting ${args.join(' ')} ended with ${error ?? code}: ${program.stderr}`);
  }
  return JSON.parse(program.stdout);
}

/** Calls the platform with a credential header, and returns data. */
export async function call(platform, headers, method, path, body) {
  const response = await fetch(platform.url + path, {
    method,
    headers: { 'Content-Type': 'application/json', ...headers },
    body: body && JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) {
    throw new Error(`${method} ${path}: ${response.status} ${text}`);
  }
  return JSON.parse(text).data;
}
