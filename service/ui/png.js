// A grey PNG of 8 bits in, its levels out, exact: a canvas may convert colours, and some browsers add noise to what is read.

import { damaged, inflate } from './inflate.js';

/** The levels of an 8-bit grey PNG, not interlaced, in an ArrayBuffer: class masks and confidences are such. */
export function parseGrey(buffer) {
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
  return new PackedLevels(width, height, joined(packed));
}

/** Levels as the zlib stream of a PNG holds them, until they are read. */
export class PackedLevels {
  constructor(width, height, packed) {
    Object.assign(this, { width, height, packed });
  }

  /**
   * Every `step`-th level of every `step`-th row, in a Uint8Array; throws an Error where they are damaged. Of the others no
   * more than a row is in memory, as to fill it takes most of the time.
   */
  read(step = 1) {
    const { width, height } = this;
    const found = new Uint8Array(Math.ceil(width / step) * Math.ceil(height / step));
    const [row, differences] = [rowOf(width), rowOf(width)];
    let to = 0;
    inflate(this.packed, height, width + 1, (bytes, from, y) => {
      const undo = FILTERS[bytes[from]];
      if (!undo) throw damaged();
      differences.bytes.set(bytes.subarray(from + 1, from + 1 + width));
      undo(row, differences);
      if (step === 1) found.set(row.bytes.subarray(0, width), y * width);
      else if (y % step === 0) for (let x = 0; x < width; x += step) found[to++] = row.bytes[x];
    });
    return found;
  }
}

/** A row of zeros, some more than its width, by bytes and by words of four. */
function rowOf(width) {
  const words = new Int32Array(4 * Math.ceil(width / 16));
  return { words, bytes: new Uint8Array(words.buffer) };
}

/** Every `step`-th value of every `step`-th row of what has been read. */
export function sampled(values, { width, height }, step) {
  if (step === 1) return values;
  const [w, h] = [Math.ceil(width / step), Math.ceil(height / step)];
  const found = new Uint8Array(w * h);
  for (let y = 0, to = 0; y < h; y += 1) {
    for (let x = 0, from = y * step * width; x < w; x += 1, to += 1, from += step) found[to] = values[from];
  }
  return found;
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

/** How each filter is undone, https://www.w3.org/TR/png-3/#9Filters: the row above becomes the one that differs so. */
const FILTERS = [
  (row, { bytes }) => row.bytes.set(bytes),
  ({ bytes: row }, { bytes }) => {
    for (let x = 0, left = 0; x < row.length; x += 1) row[x] = left = (left + bytes[x]) & 255;
  },
  ({ words: row }, { words }) => {
    const { length } = words;
    for (let at = 0; at < length; at += 4) {
      if ((words[at] | words[at + 1] | words[at + 2] | words[at + 3]) === 0) continue; // as nearly everywhere in class masks
      for (let place = at; place < at + 4; place += 1) row[place] = sums(row[place], words[place]);
    }
  },
  ({ bytes: row }, { bytes }) => {
    for (let x = 0, left = 0; x < row.length; x += 1) row[x] = left = (bytes[x] + ((left + row[x]) >> 1)) & 255;
  },
  ({ bytes: row }, { bytes }) => {
    for (let x = 0, left = 0, corner = 0; x < row.length; x += 1) {
      const up = row[x];
      row[x] = left = (bytes[x] + paeth(left, up, corner)) & 255;
      corner = up;
    }
  },
];

/** Four bytes plus four bytes, each by itself. */
function sums(one, other) {
  return ((one & 0x7f7f7f7f) + (other & 0x7f7f7f7f)) ^ ((one ^ other) & 0x80808080);
}

function paeth(left, up, corner) {
  const toLeft = Math.abs(up - corner);
  const toUp = Math.abs(left - corner);
  const toCorner = Math.abs(left + up - 2 * corner);
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}
