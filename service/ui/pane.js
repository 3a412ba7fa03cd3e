// One picture with what lies on it: the picture itself, the classes' tint, the stripes of disagreement, as layers.

import { element } from './dom.js';
import { paintClasses, paintConfidence, paintDisagreement } from './paint.js';

/** A part of the stage with layers that are moved and scaled together. */
export class Pane {
  constructor(name) {
    this.image = element('img', { class: 'layer', alt: '', draggable: 'false' });
    this.frame = element('canvas', { class: 'layer', hidden: true });
    this.tint = element('canvas', { class: 'layer tint', hidden: true });
    this.marks = element('canvas', { class: 'layer marks', hidden: true });
    this.world = element('div', { class: 'world' }, [this.image, this.frame, this.tint, this.marks]);
    this.tag = element('span', { class: 'tag', hidden: true });
    this.element = element('div', { class: 'pane', 'data-pane': name }, [this.world, this.tag]);
  }

  /** A still picture, an image element, alone. */
  setPicture(image) {
    Object.assign(image, { className: 'layer', alt: '', draggable: false });
    this.image.replaceWith(image);
    this.image = image;
    this.frame.hidden = true;
    this.tint.hidden = true;
    free(this.marks);
  }

  /** A frame of a camera, an ImageBitmap. */
  setFrame(bitmap) {
    if (this.frame.width !== bitmap.width || this.frame.height !== bitmap.height) {
      [this.frame.width, this.frame.height] = [bitmap.width, bitmap.height];
    }
    this.frame.getContext('2d').drawImage(bitmap, 0, 0);
    this.image.hidden = true;
    this.frame.hidden = false;
  }

  /** Tint by a result's classes, or by its confidence; null: the picture alone. Every `step`-th pixel is enough. */
  show(result, layer, isShown, step) {
    if (result && layer === 'classes') paintClasses(this.tint, result, isShown, step);
    else if (result?.levels) paintConfidence(this.tint, result, isShown, step);
    else this.tint.hidden = true;
  }

  /** Stripe where a pair of results differ; null: nowhere. */
  mark(pair, step) {
    if (pair) paintDisagreement(this.marks, ...pair, step);
    else free(this.marks);
  }

  /** Let go of the picture and of what lies on it, with the memory that it takes. */
  release() {
    this.image.removeAttribute('src');
    free(this.tint);
    free(this.marks);
  }

  /** Place the layers; from three screen pixels a pixel on, its edges are kept sharp. */
  place({ picture: [width, height], scale, x, y }) {
    const { style } = this.world;
    style.width = `${width}px`;
    style.height = `${height}px`;
    style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    this.world.classList.toggle('sharp', scale >= 3);
  }

  /** What is said in the corner, '' for nothing. */
  label(text) {
    this.tag.textContent = text;
    this.tag.hidden = text === '';
  }
}

/** Hide a canvas that is not painted again soon. */
function free(canvas) {
  canvas.hidden = true;
  if (canvas.width > 0) [canvas.width, canvas.height] = [0, 0];
}
