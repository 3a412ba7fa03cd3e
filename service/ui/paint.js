// Class ids or levels of confidence in, coloured canvases out: one look-up a pixel.

import { sampled } from './png.js';

const MOST_PIXELS = 16e6; // of a canvas: beyond, the browsers of phones give up
const STRIP = 1 << 16; // pixels painted at a time: they stay in the processor's cache

/** The colours of confidence, from none at all (bright) to certain (dark). */
export const HEAT_STOPS = ['#fff3b0', '#fdb44b', '#f0603e', '#a8327d', '#4a2484', '#12123a'];

/** Every how many pixels one is enough at this scale: a power of two, so that few scales paint anew. */
export function stepAt(scale, { width, height }) {
  const seen = 2 ** Math.floor(Math.log2(Math.max(1, 1 / scale)));
  return Math.max(seen, Math.ceil(Math.sqrt((width * height) / MOST_PIXELS)));
}

/** Tint a canvas by class, where `isShown`; the rest stays transparent. */
export function paintClasses(canvas, result, isShown, step) {
  const table = new Int32Array(256);
  for (const spec of result.model.classes) if (spec.draw && isShown(spec)) table[spec.id] = opaque(spec.color);
  const ids = result.idsEvery(step);
  paint(canvas, result, step, (pixels, from) => {
    for (let index = 0; index < pixels.length; index += 1) pixels[index] = table[ids[from + index]];
  });
}

/** Tint a canvas by confidence, where the class `isShown`. */
export function paintConfidence(canvas, result, isShown, step) {
  const table = heatTable();
  const shown = new Uint8Array(256);
  for (const spec of result.model.classes) shown[spec.id] = isShown(spec) ? 1 : 0;
  const [ids, levels] = [result.idsEvery(step), sampled(result.levels, result, step)];
  paint(canvas, result, step, (pixels, from) => {
    for (let index = 0; index < pixels.length; index += 1) {
      pixels[index] = shown[ids[from + index]] ? table[levels[from + index]] : 0;
    }
  });
}

/** Stripe a canvas where two results name different classes. */
export function paintDisagreement(canvas, one, other, step) {
  const same = translation(other.model, one.model);
  const [ids, others] = [one.idsEvery(step), other.idsEvery(step)];
  const period = Math.max(6, Math.round(Math.max(one.width, one.height) / 110 / step));
  paint(canvas, one, step, (pixels, from, width) => {
    for (let index = 0, at = from; index < pixels.length; index += 1, at += 1) {
      const [x, y] = [at % width, Math.floor(at / width)];
      if (same[others[at]] === ids[at]) pixels[index] = 0;
      else pixels[index] = (x + y) % period < period / 2 ? STRIPE_LIGHT : STRIPE_DARK;
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

/** Paint a canvas strip by strip: `fill` is given a strip's pixels, the number of its first one, and the canvas's width. */
function paint(canvas, { width, height }, step, fill) {
  const [w, h] = [Math.ceil(width / step), Math.ceil(height / step)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  canvas.hidden = false;
  [canvas.style.width, canvas.style.height] = [`${w * step}px`, `${h * step}px`];
  const context = canvas.getContext('2d');
  const rows = Math.min(Math.ceil(STRIP / w), h);
  const image = new ImageData(w, rows);
  const pixels = new Int32Array(image.data.buffer);
  for (let y = 0; y < h; y += rows) {
    fill(pixels.subarray(0, (h - y) * w), y * w, w);
    context.putImageData(image, 0, y);
  }
}

function heatTable() {
  const stops = HEAT_STOPS.map(channels);
  return Int32Array.from({ length: 256 }, (_, level) => {
    const place = (level / 255) * (stops.length - 1);
    const before = Math.min(Math.floor(place), stops.length - 2);
    const [from, to] = [stops[before], stops[before + 1]];
    return pack(...from.map((value, channel) => Math.round(value + (place - before) * (to[channel] - value))));
  });
}

const channels = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
const pack = (red, green, blue) => 0xff000000 | (blue << 16) | (green << 8) | red; // as ImageData has it, little-endian
const opaque = (color) => pack(...channels(color));
const STRIPE_LIGHT = 0x59ffffff; // lets what lies below shine through
const STRIPE_DARK = opaque('#e0007a');
