// Copies the full hls.js build (the light one has no alternate audio) to where build.rs embeds it from.
import { copyFileSync, mkdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const from = join(here, 'node_modules', 'hls.js', 'dist', 'hls.min.js');
const to = join(here, 'vendor', 'hls.min.js');
mkdirSync(dirname(to), { recursive: true });
copyFileSync(from, to);
console.log(`hls.js: ${statSync(to).size} bytes to vendor/hls.min.js`);
