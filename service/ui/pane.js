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
    this.picture = null; // as `opened` gives it
    this.world = element('div', { class: 'world' }, [this.image, this.frame, this.tint, this.marks]);
    this.tag = element('span', { class: 'tag', hidden: true });
    this.element = element('div', { class: 'pane', 'data-pane': name }, [this.world, this.tag]);
  }

  /** A still picture alone, in its image element; its small canvas, if it has one, until it is seen closer. */
  setPicture(picture, image = new Image()) {
    Object.assign(image, { className: 'layer', alt: '', draggable: false });
    this.image.replaceWith(image);
    this.image = image;
    if (picture.small) this.draw(picture.small);
    else this.frame.hidden = true;
    this.picture = picture;
    this.tint.hidden = true;
    free(this.marks);
  }

  /** A small canvas, or a frame of a camera, an ImageBitmap. */
  draw(frame) {
    if (this.frame.width !== frame.width || this.frame.height !== frame.height) {
      [this.frame.width, this.frame.height] = [frame.width, frame.height];
    }
    this.frame.getContext('2d').drawImage(frame, 0, 0);
    this.image.hidden = true;
    this.frame.hidden = false;
  }

  /** Show all pixels of the picture, once the browser has decoded them. */
  seeCloser() {
    const { image } = this;
    image.src = this.picture.url;
    image.hidden = false;
    const uncover = () => {
      if (this.image === image && !image.hidden) this.frame.hidden = true;
    };
    image.decode().then(uncover, () => {}); // where another came, or it cannot be had, the small one stays
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
    if (this.picture) free(this.frame);
    this.picture = null;
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
    if (this.picture && !this.image.src && width * scale * devicePixelRatio > this.frame.width) this.seeCloser();
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
