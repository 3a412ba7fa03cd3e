// Nothing in, and nothing out: a browser compiles what has run often, so a mask of no one's is read and painted until it has.

import { paintClasses } from './paint.js';
import { levelsOf } from './png.js';

const SIDE = 256;
const TURNS = 8;
const CLASSES = 8;

/** Make the first overlay nearly as fast as the next ones, while the page has nothing to do: until `isBusy()`. */
export async function warmUp(isBusy) {
  if (!globalThis.CompressionStream) return;
  const rows = new Uint8Array(SIDE * (SIDE + 1)).map((_, at) => (at % (SIDE + 1) === 0 ? 2 : Number(at % 61 === 0)));
  const stream = new Blob([rows]).stream().pipeThrough(new CompressionStream('deflate'));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const classes = Array.from({ length: CLASSES }, (_, id) => ({ id, draw: true, color: '#000000' }));
  const canvas = document.createElement('canvas');
  for (let turn = 0; turn < TURNS; turn += 1) {
    await idle();
    if (isBusy()) return;
    paintClasses(canvas, { ids: levelsOf(packed, SIDE, SIDE), width: SIDE, height: SIDE, model: { classes } }, () => true, 1);
  }
}

function idle() {
  return new Promise((resolve) => {
    (globalThis.requestIdleCallback ?? setTimeout)(resolve);
  });
}
