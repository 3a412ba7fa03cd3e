// The sides of a pane and of a picture in, where the picture lies in the pane out: fitted, zoomed, panned.

const CLOSEST = 40; // screen pixels that a picture's pixel takes at most

/** How a picture lies in a pane: screen = picture * scale + (x, y). */
export class Viewport {
  constructor() {
    Object.assign(this, { scale: 1, x: 0, y: 0, fitted: true, pane: [1, 1], picture: [1, 1] });
  }

  /** Show the whole picture, in the middle. */
  fit() {
    this.scale = this.fitScale();
    this.fitted = true;
    this.settle();
  }

  /** New sides of pane or picture: what was fitted stays fitted, what was zoomed keeps its place. */
  resize(pane, picture) {
    const other = picture[0] !== this.picture[0] || picture[1] !== this.picture[1];
    Object.assign(this, { pane, picture });
    if (this.fitted || other) this.fit();
    else this.settle();
  }

  /** Scale by `factor` round a point of the pane. */
  zoom(factor, [px, py] = [this.pane[0] / 2, this.pane[1] / 2]) {
    const least = Math.min(this.fitScale(), 1);
    const scale = Math.min(Math.max(this.scale * factor, least), CLOSEST);
    this.x = px - ((px - this.x) * scale) / this.scale;
    this.y = py - ((py - this.y) * scale) / this.scale;
    this.scale = scale;
    this.fitted = Math.abs(scale - this.fitScale()) < 1e-9;
    this.settle();
  }

  /** Move by pixels of the screen. */
  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.settle();
  }

  /** The picture's pixel under a point of the pane, or null beside the picture. */
  pixel([px, py]) {
    const [x, y] = [Math.floor((px - this.x) / this.scale), Math.floor((py - this.y) / this.scale)];
    return x >= 0 && y >= 0 && x < this.picture[0] && y < this.picture[1] ? [x, y] : null;
  }

  /** The point of the pane in the middle of a picture's pixel. */
  point([x, y]) {
    return [(x + 0.5) * this.scale + this.x, (y + 0.5) * this.scale + this.y];
  }

  /** Pan so that a picture's pixel can be seen, some way from the edge. */
  reveal(pixel) {
    const [px, py] = this.point(pixel);
    const margin = 24;
    this.pan(Math.max(margin - px, 0) + Math.min(this.pane[0] - margin - px, 0), Math.max(margin - py, 0) + Math.min(this.pane[1] - margin - py, 0));
  }

  fitScale() {
    return Math.min(this.pane[0] / this.picture[0], this.pane[1] / this.picture[1], 8);
  }

  /** Keep the picture in the pane: in the middle where it is smaller, without a gap at the edge where it is larger. */
  settle() {
    const place = (at, pane, size) => (size <= pane ? Math.round((pane - size) / 2) : Math.min(0, Math.max(pane - size, at)));
    this.x = place(this.x, this.pane[0], this.picture[0] * this.scale);
    this.y = place(this.y, this.pane[1], this.picture[1] * this.scale);
  }
}
