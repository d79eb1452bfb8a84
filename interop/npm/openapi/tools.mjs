// What the tests of the API document share: where it is, programs of npm, and the
// embedded platform.
import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const here = dirname(fileURLToPath(import.meta.url));
export const root = join(here, '..', '..', '..');
export const documentYAML = join(root, 'api', 'openapi.yaml');
export const documentJSON = join(root, 'api', 'openapi.json');

const run = promisify(execFile);

// What is left when this process ends is ended with it.
const leftovers = new Set();
process.on('exit', () => leftovers.forEach((end) => end()));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => process.exit(1));
}

/** bin is the path of a program that npm has installed. */
export const bin = (name) => join(here, '..', 'node_modules', '.bin', name);

/** output runs a program and returns what it prints; a failure has that in its message. */
export async function output(program, args, options = {}) {
  try {
    const { stdout, stderr } = await run(program, args, { maxBuffer: 1 << 26, ...options });
    return stdout + stderr;
  } catch (e) {
    throw new Error(`${program} ${args.join(' ')}: ${e.message}\n${e.stdout ?? ''}${e.stderr ?? ''}`);
  }
}

/** temporary makes a folder that is removed when the test ends. */
export function temporary(t) {
  const dir = mkdtempSync(join(tmpdir(), 'agrenting-openapi-'));
  const remove = () => rmSync(dir, { recursive: true, force: true });
  leftovers.add(remove);
  t.after(() => {
    remove();
    leftovers.delete(remove);
  });
  return dir;
}

/** start runs a program until the test ends, and returns its lines. */
export function start(t, program, args) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const kill = () => child.kill('SIGKILL');
  leftovers.add(kill);
  const ended = new Promise((resolve, reject) => child.on('close', resolve).on('error', reject));
  t.after(async () => {
    child.kill('SIGTERM');
    await ended;
    leftovers.delete(kill);
  });
  return createInterface({ input: child.stdout });
}

/** agrenting is the path of the command line, which AGRENTING names or this builds. */
export async function agrenting(t) {
  if (process.env.AGRENTING) return process.env.AGRENTING;
  const program = join(temporary(t), 'agrenting');
  await output('go', ['build', '-o', program, '.'], { cwd: join(root, 'cmd', 'agrenting') });
  return program;
}

/** sandbox starts the embedded platform and returns its URL, user, and agents. */
export async function sandbox(t, program, ...flags) {
  let text = '';
  for await (const line of start(t, program, ['sandbox', '--json', ...flags])) {
    text += line;
    if (line === '}') return JSON.parse(text);
  }
  throw new Error(`agrenting sandbox ended: ${text}`);
}
