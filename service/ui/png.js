// A grey PNG of 8 bits in, its levels out, exact: a canvas may convert colours, and some browsers add noise to what is read.

import { damaged, inflate } from './inflate.js';

/** `{width, height, levels}` of an 8-bit grey PNG, not interlaced, in an ArrayBuffer: class masks and confidences are such. */
export function decodeGrey(buffer) {
  const bytes = new Uint8Array(buffer);
  const view = new DataView(buffer);
  const packed = [];
  let width = 0;
  let height = 0;
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (kind === 'IHDR') [width, height] = [view.getUint32(at + 8), view.getUint32(at + 12)];
    if (kind === 'IDAT') packed.push(bytes.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  return { width, height, levels: levelsOf(joined(packed), width, height) };
}

/** The levels that the zlib stream of such a PNG holds. */
export function levelsOf(packed, width, height) {
  return unfilter(inflate(packed, height * (width + 1)), width, height);
}

function joined(parts) {
  if (parts.length === 1) return parts[0];
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Undo each row's filter in place, https://www.w3.org/TR/png-3/#9Filters, which leaves the levels at the beginning. */
function unfilter(rows, width, height) {
  let above = new Uint8Array(width);
  for (let y = 0; y < height; y += 1) {
    const from = y * (width + 1);
    const undo = FILTERS[rows[from]];
    if (!undo) throw damaged();
    rows.copyWithin(y * width, from + 1, from + 1 + width);
    const row = rows.subarray(y * width, (y + 1) * width);
    undo(row, above);
    above = row;
  }
  return rows.subarray(0, width * height);
}

const FILTERS = [
  () => {},
  (row) => {
    for (let x = 1; x < row.length; x += 1) row[x] += row[x - 1];
  },
  up,
  (row, above) => {
    for (let x = 0, left = 0; x < row.length; x += 1) row[x] = left = (row[x] + ((left + above[x]) >> 1)) & 255;
  },
  (row, above) => {
    for (let x = 0, left = 0, corner = 0; x < row.length; x += 1) {
      row[x] += paeth(left, above[x], corner);
      left = row[x];
      corner = above[x];
    }
  },
];

/** row += above, four bytes at a time where they lie so: class masks are all of this filter. */
function up(row, above) {
  if (row.length % 4 || row.byteOffset % 4 || above.byteOffset % 4) {
    for (let x = 0; x < row.length; x += 1) row[x] += above[x];
    return;
  }
  const sums = new Uint32Array(row.buffer, row.byteOffset, row.length / 4);
  const before = new Uint32Array(above.buffer, above.byteOffset, row.length / 4);
  for (let x = 0; x < sums.length; x += 1) {
    const a = sums[x];
    const b = before[x];
    sums[x] = ((a & 0x7f7f7f7f) + (b & 0x7f7f7f7f)) ^ ((a ^ b) & 0x80808080);
  }
}

function paeth(left, up, corner) {
  const toLeft = Math.abs(up - corner);
  const toUp = Math.abs(left - corner);
  const toCorner = Math.abs(left + up - 2 * corner);
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}
