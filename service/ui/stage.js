// Pictures and results in, what a person sees out: one pane, two with a divider, or two side by side, zoomed alike.

import { element } from './dom.js';
import { stepAt } from './paint.js';
import { Pane } from './pane.js';
import { Viewport } from './viewport.js';

/** The place where the picture is shown. `onView` hears of each change of zoom. */
export class Stage {
  constructor(view, divider, onView) {
    this.view = view;
    this.divider = divider;
    this.onView = onView;
    this.viewport = new Viewport();
    this.panes = { left: new Pane('left'), right: new Pane('right') };
    this.layout = 'single';
    this.split = 50;
    this.size = null;
    this.box = [view.clientWidth, view.clientHeight];
    this.shown = null;
    this.picture = null; // as `opened` gives it, where it is no camera's frame
    this.painted = null; // the step between painted pixels
    this.crossed = null;
    this.cross = element('div', { class: 'cross', hidden: true, 'aria-hidden': 'true' });
    view.append(this.panes.left.element, this.panes.right.element, this.cross);
    new ResizeObserver(() => this.resize()).observe(view);
    this.setSplit(50);
  }

  /** A still picture, as `opened` gives it; the last one goes, with what lay on it. */
  setPicture(picture) {
    this.forget();
    this.picture = picture;
    this.panes.left.setPicture(picture, picture.image);
    this.setSize(picture.width, picture.height);
  }

  /** A camera's frame. */
  setFrame(bitmap) {
    this.forget();
    this.each((pane) => pane.draw(bitmap));
    this.setSize(bitmap.width, bitmap.height);
  }

  forget() {
    if (this.picture) URL.revokeObjectURL(this.picture.url);
    Object.assign(this, { picture: null, shown: null });
    this.each((pane) => {
      pane.picture = null;
    });
  }

  setSize(width, height) {
    this.view.parentElement.classList.add('filled');
    if (this.size?.[0] === width && this.size[1] === height) return;
    this.size = [width, height];
    this.viewport.fitted = true;
    this.fitPanes();
  }

  /**
   * Show results: `left` and `right` (null: the bare picture), coloured by `layer` (classes, confidence) with `opacity`.
   * `marks`: the two results whose disagreement is striped, or null.
   */
  show(shown) {
    this.shown = shown;
    this.layout = shown.layout;
    this.view.dataset.layout = this.layout;
    this.divider.hidden = this.layout !== 'swipe';
    const { right } = this.panes;
    if (this.layout === 'single') right.release();
    else if (this.picture && right.picture !== this.picture) right.setPicture(this.picture, this.picture.image?.cloneNode());
    const labels = this.layout === 'single' ? ['', ''] : shown.labels;
    this.panes.left.label(labels[0]);
    this.panes.right.label(labels[1]);
    this.setOpacity(shown.opacity);
    this.painted = null;
    this.fitPanes();
  }

  /** Paint what is shown, unless it has been painted finely enough for this scale. */
  paint() {
    if (!this.shown || !this.size) return;
    const [width, height] = this.size;
    const step = stepAt(this.viewport.scale * devicePixelRatio, { width, height });
    if (this.painted !== null && step >= this.painted) return;
    const { left, right, layer, isShown, marks } = this.shown;
    this.panes.left.show(left, layer, isShown, step);
    this.panes.left.mark(marks, step);
    if (this.layout !== 'single') {
      this.panes.right.show(right, layer, isShown, step);
      this.panes.right.mark(marks, step);
    }
    this.painted = step;
  }

  /** The tint's share, 0 to 1: nothing is painted again. */
  setOpacity(opacity) {
    this.each((pane) => {
      pane.tint.style.opacity = opacity;
    });
  }

  /** Where the divider of the swipe is, in percent of the width. */
  setSplit(percent) {
    this.split = Math.min(Math.max(percent, 0), 100);
    this.divider.style.left = `${this.split}%`;
    this.divider.setAttribute('aria-valuenow', Math.round(this.split));
    this.clip();
  }

  /** The pane under a point of the view, and the picture's pixel there. */
  locate(x, y) {
    const inRight = this.layout === 'swipe' ? x > (this.box[0] * this.split) / 100 : this.isInRight(x, y);
    const [left, top] = this.layout === 'side' && inRight ? this.offset() : [0, 0];
    return { side: inRight ? 'right' : 'left', point: [x - left, y - top], pixel: this.viewport.pixel([x - left, y - top]) };
  }

  /** Its sides in pixels of the screen. */
  sides() {
    return this.box.map((side) => side * devicePixelRatio);
  }

  /** Mark a pixel with a cross in the left pane; null takes it away. */
  setCross(pixel) {
    this.crossed = pixel;
    this.cross.hidden = pixel === null;
    if (pixel === null) return;
    const [x, y] = this.viewport.point(pixel);
    this.cross.style.transform = `translate(${x}px, ${y}px)`;
  }

  /** Change the viewport, then show it. */
  move(change) {
    change(this.viewport);
    this.place();
  }

  /** The view's sides are remembered: to ask for them amid changes costs a layout. */
  resize() {
    this.box = [this.view.clientWidth, this.view.clientHeight];
    this.fitPanes();
  }

  fitPanes() {
    if (!this.size) return;
    const [width, height] = this.box;
    const beside = this.layout === 'side' && this.isWide(width, height);
    const above = this.layout === 'side' && !beside;
    this.view.classList.toggle('stacked', above);
    this.viewport.resize([beside ? width / 2 : width, above ? height / 2 : height], this.size);
    this.place();
    this.clip();
  }

  /** Whether two panes show more of the picture beside each other than one above the other. */
  isWide(width, height) {
    const fit = (w, h) => Math.min(w / this.size[0], h / this.size[1]);
    return fit(width / 2, height) >= fit(width, height / 2);
  }

  place() {
    this.each((pane) => pane.place(this.viewport));
    this.paint();
    if (this.crossed) this.setCross(this.crossed);
    this.onView(this.viewport);
  }

  clip() {
    this.panes.right.element.style.clipPath = this.layout === 'swipe' ? `inset(0 0 0 ${this.split}%)` : 'none';
  }

  isInRight(x, y) {
    if (this.layout !== 'side') return false;
    const [left, top] = this.offset();
    return left > 0 ? x >= left : y >= top;
  }

  offset() {
    const stacked = this.view.classList.contains('stacked');
    const [width, height] = this.box;
    return stacked ? [0, height / 2] : [width / 2, 0];
  }

  each(act) {
    act(this.panes.left);
    act(this.panes.right);
  }
}
