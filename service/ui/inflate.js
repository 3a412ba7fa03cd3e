// A zlib stream in, its bytes out piece by piece (RFC 1950 and 1951). Long runs, of which class masks consist, are filled at
// once, in a third of the time that a DecompressionStream takes, and without its waits.

const HEADER = 2; // bytes
const FARTHEST = 32_768; // bytes back that a repetition may begin
const LONGEST = 258; // bytes that one repeats at most
const PIECE = 131_072; // bytes that are unpacked at a time: they stay in the processor's cache
const AHEAD = 4; // bytes of zeros behind the end, as more is read than used
const SHORT = 32; // bytes: fewer are copied one by one
const END = 256; // the symbol that ends a block; those above are lengths
const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const LENGTH_BITS = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0);
const LENGTHS = Uint16Array.from(bases(3, LENGTH_BITS));
LENGTHS[28] = LONGEST; // has a code of its own, though the one before could say it
const DISTANCE_BITS = Uint8Array.from({ length: 30 }, (_, symbol) => Math.max(0, (symbol >> 1) - 1));
const DISTANCES = Uint16Array.from(bases(1, DISTANCE_BITS));
const FIXED = [
  decoder(Uint8Array.from({ length: 288 }, (_, symbol) => (symbol < 144 ? 8 : symbol < 256 ? 9 : symbol < 280 ? 7 : 8))),
  decoder(new Uint8Array(30).fill(5)),
];

/**
 * Read a zlib stream, in a Uint8Array, of `count` records of `length` bytes: `take(bytes, from, index)` is given each, in a
 * buffer that is used again. Throws an Error where the stream holds anything else. Its checksum is left alone: the connection
 * has its own.
 */
export function inflate(packed, count, length, take) {
  const bits = new Bits(packed);
  const out = new Records(count, length, take);
  for (let last = 0; !last;) {
    last = bits.take(1);
    const kind = bits.take(2);
    if (kind === 3) throw damaged();
    if (kind === 0) copyStored(bits, out);
    else copyPacked(bits, out, kind === 1 ? FIXED : decoders(bits));
    if (bits.place() > packed.length) throw damaged();
  }
  out.end();
}

/** What has been unpacked, up to `at`, in a buffer that keeps what may be repeated, and what no record is complete with. */
class Records {
  constructor(count, length, take) {
    Object.assign(this, { count, length, take, index: 0, from: 0, at: 0 });
    this.bytes = new Uint8Array(Math.max(FARTHEST, length) + PIECE);
    this.full = this.bytes.length - LONGEST;
  }

  /** Give away the records that are complete. */
  give() {
    for (; this.at - this.from >= this.length && this.index < this.count; this.index += 1) {
      this.take(this.bytes, this.from, this.index);
      this.from += this.length;
    }
  }

  /** Make room after byte `at`; where that is now. */
  makeRoom(at) {
    this.at = at;
    this.give();
    if (this.index === this.count) throw damaged(); // and yet there is more
    const passed = Math.min(this.from, at - FARTHEST);
    this.bytes.copyWithin(0, passed, at);
    this.from -= passed;
    this.at -= passed;
    return this.at;
  }

  end() {
    this.give();
    if (this.index !== this.count || this.from !== this.at) throw damaged();
  }
}

/** The bits of a stream, the lowest of each byte first: `count` of them are in `held`, the others from byte `next` on. */
class Bits {
  constructor(packed) {
    Object.assign(this, { bytes: new Uint8Array(packed.length + AHEAD), next: HEADER, held: 0, count: 0 });
    this.bytes.set(packed);
  }

  take(wanted) {
    for (; this.count < wanted; this.count += 8) this.held |= this.bytes[this.next++] << this.count;
    const value = this.held & ((1 << wanted) - 1);
    this.held >>>= wanted;
    this.count -= wanted;
    return value;
  }

  /** The next symbol of a code, whose table `decoder` made. */
  pick(table) {
    for (; this.count < 15; this.count += 8) this.held |= this.bytes[this.next++] << this.count;
    const code = table[this.held & (table.length - 1)];
    this.take(code & 15);
    return code >> 4;
  }

  /** The byte after the last that was begun. */
  place() {
    return this.next - (this.count >> 3);
  }

  /** Go on at a byte. */
  move(place) {
    Object.assign(this, { next: place, held: 0, count: 0 });
  }
}

function copyStored(bits, out) {
  let place = bits.place() + 4; // the length is there twice
  const end = place + (bits.bytes[place - 4] | (bits.bytes[place - 3] << 8));
  if (end > bits.bytes.length - AHEAD) throw damaged();
  while (place < end) {
    if (out.at >= out.full) out.makeRoom(out.at);
    const until = Math.min(end, place + out.full - out.at);
    out.bytes.set(bits.bytes.subarray(place, until), out.at);
    out.at += until - place;
    place = until;
  }
  bits.move(end);
}

/** All of a block's symbols; what bits holds is in variables meanwhile, as the time goes here. */
function copyPacked(bits, out, [symbols, distances]) {
  const { bytes } = bits;
  const { bytes: found, full } = out;
  const [symbolMask, distanceMask] = [symbols.length - 1, distances.length - 1];
  let { next, held, count } = bits;
  for (let { at } = out; ;) {
    for (; count < 24; count += 8) held |= bytes[next++] << count;
    let code = symbols[held & symbolMask];
    held >>>= code & 15;
    count -= code & 15;
    let symbol = code >> 4;
    if (symbol === END) {
      Object.assign(bits, { next, held, count });
      out.at = at;
      return;
    }
    if (at >= full) at = out.makeRoom(at);
    if (symbol < END) {
      found[at++] = symbol;
      continue;
    }
    symbol -= END + 1;
    const length = LENGTHS[symbol] + (held & ((1 << LENGTH_BITS[symbol]) - 1));
    held >>>= LENGTH_BITS[symbol];
    count -= LENGTH_BITS[symbol];
    for (; count < 24; count += 8) held |= bytes[next++] << count;
    code = distances[held & distanceMask];
    held >>>= code & 15;
    count -= code & 15;
    for (; count < 16; count += 8) held |= bytes[next++] << count;
    symbol = code >> 4;
    const distance = DISTANCES[symbol] + (held & ((1 << DISTANCE_BITS[symbol]) - 1));
    held >>>= DISTANCE_BITS[symbol];
    count -= DISTANCE_BITS[symbol];
    if (!(distance <= at && length <= LONGEST)) throw damaged(); // NaN where there is no such symbol
    repeat(found, at, length, distance);
    at += length;
  }
}

/** Write `length` bytes at a place, those of `distance` before, which may be among them. */
function repeat(bytes, at, length, distance) {
  const end = at + length;
  if (length >= SHORT && distance >= length) bytes.copyWithin(at, at - distance, end - distance);
  else if (length < SHORT || distance > 1) for (let to = at; to < end; to += 1) bytes[to] = bytes[to - distance];
  else bytes.fill(bytes[at - 1], at, end);
}

/** The codes that a block brings, themselves packed. */
function decoders(bits) {
  const [symbols, distances, orders] = [bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4];
  const own = new Uint8Array(19);
  for (const symbol of ORDER.slice(0, orders)) own[symbol] = bits.take(3);
  const table = decoder(own);
  const lengths = new Uint8Array(symbols + distances);
  for (let at = 0; at < lengths.length;) {
    const symbol = bits.pick(table);
    if (symbol < 16) lengths[at++] = symbol;
    else if (symbol === 16) lengths.fill(lengths[at - 1], at, at += 3 + bits.take(2));
    else at += symbol === 17 ? 3 + bits.take(3) : 11 + bits.take(7); // zeros, which are there
  }
  return [decoder(lengths.subarray(0, symbols)), decoder(lengths.subarray(symbols))];
}

/** From the length of each symbol's code, 0 to 15 bits: a table of symbol << 4 | length for all bits that may come next. */
function decoder(lengths) {
  const most = Math.max(...lengths);
  const table = new Uint16Array(1 << most);
  for (let length = 1, code = 0; length <= most; length += 1, code <<= 1) {
    for (let symbol = 0; symbol < lengths.length; symbol += 1) {
      if (lengths[symbol] !== length) continue;
      for (let place = reversed(code, length); place < table.length; place += 1 << length) table[place] = (symbol << 4) | length;
      code += 1;
    }
  }
  return table;
}

function reversed(code, length) {
  let found = 0;
  for (let bit = 0; bit < length; bit += 1) found |= ((code >> bit) & 1) << (length - 1 - bit);
  return found;
}

/** The least value that each symbol stands for, where its further bits say how much more it is. */
function bases(first, bits) {
  let next = first;
  return Array.from(bits, (count) => {
    next += 1 << count;
    return next - (1 << count);
  });
}

/** What is thrown where bytes cannot be what was sent. */
export function damaged() {
  const detail = 'The mask that the server sent is damaged: try again.';
  return Object.assign(new Error(detail), { detail });
}
