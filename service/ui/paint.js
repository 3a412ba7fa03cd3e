// Class ids or levels of confidence in, coloured canvases out: one look-up a pixel.

const MOST_PIXELS = 16e6; // of a canvas: beyond, the browsers of phones give up

/** The colours of confidence, from none at all (bright) to certain (dark). */
export const HEAT_STOPS = ['#fff3b0', '#fdb44b', '#f0603e', '#a8327d', '#4a2484', '#12123a'];

/** Every how many pixels one is enough at this scale: a power of two, so that few scales paint anew. */
export function stepAt(scale, { width, height }) {
  const seen = 2 ** Math.floor(Math.log2(Math.max(1, 1 / scale)));
  return Math.max(seen, Math.ceil(Math.sqrt((width * height) / MOST_PIXELS)));
}

/** Tint a canvas by class, where `isShown`; the rest stays transparent. */
export function paintClasses(canvas, result, isShown, step) {
  const table = new Uint32Array(256);
  for (const spec of result.model.classes) if (spec.draw && isShown(spec)) table[spec.id] = opaque(spec.color);
  const ids = sampled(result.ids, result, step);
  paint(canvas, result, step, (pixels) => {
    for (let index = 0; index < pixels.length; index += 1) pixels[index] = table[ids[index]];
  });
}

/** Tint a canvas by confidence, where the class `isShown`. */
export function paintConfidence(canvas, result, isShown, step) {
  const table = heatTable();
  const shown = new Uint8Array(256);
  for (const spec of result.model.classes) shown[spec.id] = isShown(spec) ? 1 : 0;
  const [ids, levels] = [sampled(result.ids, result, step), sampled(result.levels, result, step)];
  paint(canvas, result, step, (pixels) => {
    for (let index = 0; index < pixels.length; index += 1) pixels[index] = shown[ids[index]] ? table[levels[index]] : 0;
  });
}

/** Stripe a canvas where two results name different classes. */
export function paintDisagreement(canvas, one, other, step) {
  const same = translation(other.model, one.model);
  const [ids, others] = [sampled(one.ids, one, step), sampled(other.ids, other, step)];
  const period = Math.max(6, Math.round(Math.max(one.width, one.height) / 110 / step));
  paint(canvas, one, step, (pixels, width) => {
    for (let index = 0; index < pixels.length; index += 1) {
      if (same[others[index]] === ids[index]) continue;
      const x = index % width;
      pixels[index] = (x + (index - x) / width) % period < period / 2 ? STRIPE_LIGHT : STRIPE_DARK;
    }
  });
}

/** The share of the pixels at which two results name different classes. */
export function disagreement(one, other) {
  const same = translation(other.model, one.model);
  let count = 0;
  for (let index = 0; index < one.ids.length; index += 1) if (same[other.ids[index]] !== one.ids[index]) count += 1;
  return count / one.ids.length;
}

/** For each class id of a model, the id of the class of the same name in another; -1 where there is none. */
function translation(from, to) {
  const ids = new Map(to.classes.map((spec) => [spec.name, spec.id]));
  const table = new Int16Array(256).fill(-1);
  for (const spec of from.classes) table[spec.id] = ids.get(spec.name) ?? -1;
  return table;
}

function paint(canvas, { width, height }, step, fill) {
  const [w, h] = [Math.ceil(width / step), Math.ceil(height / step)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  canvas.hidden = false;
  [canvas.style.width, canvas.style.height] = [`${w * step}px`, `${h * step}px`];
  const image = new ImageData(w, h);
  fill(new Uint32Array(image.data.buffer), w);
  canvas.getContext('2d').putImageData(image, 0, 0);
}

/** Every `step`-th value of every `step`-th row. */
function sampled(values, { width, height }, step) {
  if (step === 1) return values;
  const [w, h] = [Math.ceil(width / step), Math.ceil(height / step)];
  const found = new Uint8Array(w * h);
  for (let y = 0, to = 0; y < h; y += 1) {
    for (let x = 0, from = y * step * width; x < w; x += 1, to += 1, from += step) found[to] = values[from];
  }
  return found;
}

function heatTable() {
  const stops = HEAT_STOPS.map(channels);
  return Uint32Array.from({ length: 256 }, (_, level) => {
    const place = (level / 255) * (stops.length - 1);
    const before = Math.min(Math.floor(place), stops.length - 2);
    const [from, to] = [stops[before], stops[before + 1]];
    return pack(...from.map((value, channel) => Math.round(value + (place - before) * (to[channel] - value))));
  });
}

const channels = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
const pack = (red, green, blue) => (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0; // as ImageData has it, little-endian
const opaque = (color) => pack(...channels(color));
const STRIPE_LIGHT = 0x59ffffff; // lets what lies below shine through
const STRIPE_DARK = opaque('#e0007a');
