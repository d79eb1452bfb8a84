// The types that openapi-typescript makes of the API document compile under strict
// rules, with a program that uses them, and the program works.
import { test } from 'node:test';
import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { agrenting, bin, documentYAML, here, output, sandbox, temporary } from './tools.mjs';

test('a typed program compiles and works', async (t) => {
  const dir = temporary(t);
  await output(bin('openapi-typescript'), [documentYAML, '--output', join(dir, 'platform.d.ts')]);
  await copyFile(join(here, 'program.ts'), join(dir, 'program.ts'));
  await writeFile(join(dir, 'package.json'), '{"type": "module"}');
  const config = {
    compilerOptions: {
      strict: true, skipLibCheck: false, noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true,
      noUnusedLocals: true, noUnusedParameters: true,
      target: 'es2022', lib: ['es2022', 'dom', 'dom.iterable'], module: 'nodenext', types: [],
    },
    include: ['*.ts'],
  };
  await writeFile(join(dir, 'tsconfig.json'), JSON.stringify(config));
  await output(bin('tsc'), ['--project', dir]);

  const platform = await sandbox(t, await agrenting(t));
  await output(process.execPath, [join(dir, 'program.js'), platform.url, platform.agents[0].key, platform.agents[1].id]);
});
