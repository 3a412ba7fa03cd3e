// A picture and a model in, what the net saw in it out: class ids in memory, every other view from the server when wanted.

import { call, Problem } from './api.js';
import { percent } from './dom.js';
import { parseGrey, sampled } from './png.js';

const BIG = 1 << 20; // bytes: from here on an upload takes long enough to show how far it is

/** What a net saw, as PackedLevels of class ids; `origin`: of which file, and the id by which the server keeps it. */
export class Result {
  constructor(model, mask, origin = {}) {
    this.model = model;
    this.mask = mask;
    this.width = mask.width;
    this.height = mask.height;
    this.all = null; // ids, once they are needed
    this.file = origin.file ?? null;
    this.id = origin.id ?? null;
    this.counts = null; // of pixels by class id, once `shares` has counted them
    this.levels = null; // of confidence, once `confidence` has fetched them
    this.asked = null;
  }

  /** A class id for each pixel. */
  get ids() {
    this.all ??= this.mask.read();
    return this.all;
  }

  /** Every `step`-th id of every `step`-th row; a large mask is shown before it has been read whole. */
  idsEvery(step) {
    return step > 1 && !this.all ? this.mask.read(step) : sampled(this.ids, this, step);
  }

  /** The classes, each with its share, the largest first. */
  shares() {
    this.counts ??= histogram(this.ids);
    const { counts } = this;
    const found = this.model.classes.map((spec) => ({ spec, share: counts[spec.id] / this.ids.length }));
    return found.sort((one, other) => other.share - one.share || one.spec.id - other.spec.id);
  }

  /** The largest shares in words. */
  summary() {
    const named = this.shares().filter(({ share }) => share >= 0.001).slice(0, 6);
    return named.map(({ spec, share }) => `${spec.name} ${percent(share)}`).join(', ');
  }

  /** The class at a pixel, and how sure the net is of it, 0 to 1 (null where that is not known yet, or never). */
  at(x, y) {
    const index = y * this.width + x;
    const spec = this.model.classes[this.ids[index]];
    return { spec, confidence: this.levels ? this.levels[index] / 255 : null };
  }

  /** The levels of confidence, 0 to 255, asked for once; null where the model has none. */
  confidence() {
    if (!this.id && !this.file) return Promise.resolve(null); // a camera's frame is not kept
    this.asked ??= this.view('confidence').then((blob) => blob.arrayBuffer()).then((buffer) => {
      this.levels = parseGrey(buffer).read();
      return this.levels;
    }).catch((problem) => {
      if (problem.status === 422) return null; // class ids without scores
      this.asked = null;
      throw problem;
    });
    return this.asked;
  }

  /** A view of it as a Blob: from what the server has stored, else by sending the picture again. */
  async view(name, options = {}) {
    if (this.id) {
      try {
        return await (await call(`results/${this.id}/${name}?${new URLSearchParams(options)}`)).blob();
      } catch (problem) {
        if (![404, 409, 503].includes(problem.status)) throw problem;
      }
    }
    if (!this.file) throw new Problem(404, 'unknown-result', 'The picture is not there any more: open it again.');
    return (await post(this.file, this.model, { output: name, ...options })).blob();
  }
}

/** Segment a picture file with a model. */
export async function segment(file, model, { signal, onProgress } = {}) {
  const response = await post(file, model, { output: 'mask', store: true }, { signal, onProgress });
  const id = response.headers.get('Content-Location')?.split('/').pop() ?? null;
  return new Result(model, parseGrey(await response.arrayBuffer()), { file, id });
}

function post(file, model, options, { signal, onProgress } = {}) {
  const query = new URLSearchParams({ ...options, model: model.name, version: model.version });
  const type = file.type.startsWith('image/') ? file.type : 'application/octet-stream';
  const heard = file.size >= BIG ? onProgress : undefined;
  const request = { method: 'POST', body: file, headers: { 'Content-Type': type }, signal, onProgress: heard };
  return call(`segment?${query}`, request);
}

/** How many pixels each id has. Neighbours are mostly alike: runs of the same four are counted. */
function histogram(ids) {
  const counts = new Uint32Array(256);
  const fours = new Uint32Array(ids.buffer, ids.byteOffset, ids.length >> 2);
  for (let start = 0, end = 1; start < fours.length; start = end, end += 1) {
    const four = fours[start];
    while (fours[end] === four) end += 1;
    for (let shift = 0; shift < 32; shift += 8) counts[(four >>> shift) & 255] += end - start;
  }
  for (const id of ids.subarray(4 * fours.length)) counts[id] += 1;
  return counts;
}
