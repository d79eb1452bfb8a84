// Builds the command line, unless AGRENTING names a program, and runs the tests.
//   node clients/main.mjs [file…]
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, '../../..');
const built = mkdtempSync(join(tmpdir(), 'agrenting-build-'));
process.on('exit', () => rmSync(built, { recursive: true, force: true }));

function run(command, args, options) {
  const child = spawn(command, args, { stdio: 'inherit', ...options });
  const forward = (signal) => child.kill(signal);
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  signals.forEach((signal) => process.on(signal, forward));
  return new Promise((resolve) => {
    child.on('error', (error) => {
      console.error(`${command}: ${error.message}`);
      resolve(1);
    });
    child.on('close', (code) => resolve(code ?? 1));
  }).finally(() => signals.forEach((signal) => process.off(signal, forward)));
}

const env = { ...process.env };
if (!env.AGRENTING) {
  env.AGRENTING = join(built, 'agrenting');
  const status = await run('go', ['build', '-o', env.AGRENTING, './cmd/agrenting'], { cwd: root });
  if (status !== 0) {
    process.exit(status);
  }
}
env.AGRENTING = resolve(env.AGRENTING);
let files = process.argv.slice(2);
if (files.length === 0) {
  files = readdirSync(here).filter((name) => name.endsWith('.test.mjs')).sort().map((name) => join(here, name));
}
process.exitCode = await run(process.execPath, ['--test', '--test-reporter=spec', ...files], { env });
