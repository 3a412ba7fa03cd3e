// A grey PNG of 8 bits in, its levels out, exact: a canvas may convert colours, and some browsers add noise to what is read.

/** `{width, height, levels}` of an 8-bit grey PNG, not interlaced, in an ArrayBuffer: class masks and confidences are such. */
export async function decodeGrey(buffer) {
  const bytes = new Uint8Array(buffer);
  const view = new DataView(buffer);
  const packed = [];
  let width = 0;
  let height = 0;
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (kind === 'IHDR') [width, height] = [view.getUint32(at + 8), view.getUint32(at + 12)];
    if (kind === 'IDAT') packed.push(body);
    at += length + 12;
  }
  return { width, height, levels: unfilter(await inflate(packed, height * (width + 1)), width, height) };
}

async function inflate(parts, size) {
  const rows = new Uint8Array(size);
  const packed = new ReadableStream({
    start(controller) {
      for (const part of parts) controller.enqueue(part);
      controller.close();
    },
  });
  const reader = packed.pipeThrough(new DecompressionStream('deflate')).getReader();
  for (let at = 0; ;) {
    const { done, value } = await reader.read();
    if (done) return rows;
    rows.set(value, at);
    at += value.length;
  }
}

/** Undo each row's filter, https://www.w3.org/TR/png-3/#9Filters. */
function unfilter(rows, width, height) {
  const levels = new Uint8Array(width * height);
  let above = new Uint8Array(width);
  for (let y = 0; y < height; y += 1) {
    const from = y * (width + 1);
    const row = rows.subarray(from + 1, from + 1 + width);
    const out = levels.subarray(y * width, (y + 1) * width);
    FILTERS[rows[from]](row, above, out);
    above = out;
  }
  return levels;
}

const FILTERS = [
  (row, above, out) => out.set(row),
  (row, above, out) => {
    for (let x = 0, left = 0; x < row.length; x += 1) out[x] = left = (row[x] + left) & 255;
  },
  up,
  (row, above, out) => {
    for (let x = 0, left = 0; x < row.length; x += 1) out[x] = left = (row[x] + ((left + above[x]) >> 1)) & 255;
  },
  (row, above, out) => {
    for (let x = 0, left = 0, corner = 0; x < row.length; x += 1) {
      out[x] = row[x] + paeth(left, above[x], corner);
      left = out[x];
      corner = above[x];
    }
  },
];

/** out = row + above, four bytes at a time where they lie so: class masks are all of this filter. */
function up(row, above, out) {
  if (row.length % 4 || out.byteOffset % 4 || above.byteOffset % 4) {
    for (let x = 0; x < row.length; x += 1) out[x] = row[x] + above[x];
    return;
  }
  out.set(row);
  const sums = new Uint32Array(out.buffer, out.byteOffset, out.length / 4);
  const before = new Uint32Array(above.buffer, above.byteOffset, out.length / 4);
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
