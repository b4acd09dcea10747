// Bundles the two clients for a page.
import {dirname} from 'node:path';
import {fileURLToPath} from 'node:url';
import {build} from 'esbuild';

await build({
  entryPoints: {'grpc-web': 'grpc-web/client.js', connect: 'connect/client.js'},
  bundle: true,
  outdir: 'build',
  format: 'iife',
  target: 'es2022',
  absWorkingDir: dirname(fileURLToPath(import.meta.url)),
  logLevel: 'warning',
});
