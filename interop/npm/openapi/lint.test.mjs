// The API document has no error and no warning. Its form in JSON is made of the other
// one, which a Go test checks.
import { test } from 'node:test';
import { join } from 'node:path';
import { bin, documentYAML, here, output } from './tools.mjs';

test('redocly accepts the document', () =>
  output(bin('redocly'), ['lint', '--config', join(here, 'redocly.yaml'), documentYAML], {
    env: { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' },
  }));

test('spectral accepts the document', () =>
  output(bin('spectral'), ['lint', '--ruleset', join(here, 'spectral.yaml'), '--fail-severity', 'warn', documentYAML]));
