// Mouse, fingers and keys on the stage in, zoom, pan and the pixel that is pointed at out.

const STEP = 12; // screen pixels that an arrow key moves the cross by
const KEY_ZOOM = 1.25;
const TAP_PIXELS = 6; // a finger that moves less has tapped

/** Listen on the stage; `onPoint({side, pixel, place, byKey})` hears what is pointed at, or null. */
export function listen(stage, onPoint) {
  const { view } = stage;
  const fingers = new Map();
  let moved = 0;

  const placeOf = (event) => {
    const box = view.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  const point = (place) => {
    const { side, pixel } = stage.locate(...place);
    onPoint(pixel && { side, pixel, place, byKey: false });
  };

  view.addEventListener('pointerdown', (event) => {
    if (event.button > 0) return;
    fingers.set(event.pointerId, placeOf(event));
    moved = 0;
    view.setPointerCapture(event.pointerId);
  });

  view.addEventListener('pointermove', (event) => {
    const place = placeOf(event);
    const before = fingers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === 'mouse') point(place);
      return;
    }
    const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    moved += distance(before, place);
    if (others.length > 0) pinch(before, place, others[0]);
    else if (moved >= TAP_PIXELS) stage.move((viewport) => viewport.pan(place[0] - before[0], place[1] - before[1]));
    if (event.pointerType === 'mouse' && others.length === 0) point(place);
    fingers.set(event.pointerId, place);
  });

  const pinch = (before, place, other) => {
    const middle = stage.locate((place[0] + other[0]) / 2, (place[1] + other[1]) / 2).point;
    stage.move((viewport) => {
      viewport.zoom(distance(place, other) / Math.max(distance(before, other), 1), middle);
      viewport.pan((place[0] - before[0]) / 2, (place[1] - before[1]) / 2);
    });
  };

  const lift = (event) => {
    const at = fingers.get(event.pointerId);
    fingers.delete(event.pointerId);
    if (at && event.type === 'pointerup' && event.pointerType !== 'mouse' && moved < TAP_PIXELS) point(at);
  };
  view.addEventListener('pointerup', lift);
  view.addEventListener('pointercancel', lift);
  view.addEventListener('pointerleave', (event) => event.pointerType === 'mouse' && onPoint(null));

  view.addEventListener('wheel', (event) => {
    if (!stage.size) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 20 : 1;
    const factor = Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002));
    const { point: at } = stage.locate(...placeOf(event));
    stage.move((viewport) => viewport.zoom(factor, at));
    point(placeOf(event));
  }, { passive: false });

  view.addEventListener('dblclick', (event) => {
    const { point: at } = stage.locate(...placeOf(event));
    stage.move((viewport) => (viewport.fitted ? viewport.zoom(Math.max(1 / viewport.scale, 2), at) : viewport.fit()));
  });

  view.addEventListener('keydown', (event) => {
    if (!stage.size || event.metaKey || event.ctrlKey || event.altKey) return;
    const act = keyAct(stage, event, onPoint);
    if (!act) return;
    event.preventDefault();
    act();
  });
  view.addEventListener('blur', () => stage.setCross(null));
}

function keyAct(stage, event, onPoint) {
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const direction = arrows[event.key];
  if (direction) return () => step(stage, direction, event.shiftKey ? 5 * STEP : STEP, onPoint);
  const centre = stage.crossed ? [stage.viewport.point(stage.crossed)] : [];
  const acts = {
    '+': () => stage.move((viewport) => viewport.zoom(KEY_ZOOM, ...centre)),
    '=': () => stage.move((viewport) => viewport.zoom(KEY_ZOOM, ...centre)),
    '-': () => stage.move((viewport) => viewport.zoom(1 / KEY_ZOOM, ...centre)),
    0: () => stage.move((viewport) => viewport.fit()),
    1: () => stage.move((viewport) => viewport.zoom(1 / viewport.scale, ...centre)),
    Escape: () => {
      stage.setCross(null);
      onPoint(null);
    },
  };
  return acts[event.key];
}

function step(stage, [dx, dy], pixels, onPoint) {
  const [width, height] = stage.size;
  const [x, y] = stage.crossed ?? [Math.floor(width / 2), Math.floor(height / 2)];
  const stride = stage.crossed ? Math.max(1, Math.round(pixels / stage.viewport.scale)) : 0; // at first: the middle
  const clamp = (value, side) => Math.min(Math.max(value, 0), side - 1);
  const pixel = [clamp(x + dx * stride, width), clamp(y + dy * stride, height)];
  stage.move((viewport) => viewport.reveal(pixel));
  stage.setCross(pixel);
  onPoint({ side: 'left', pixel, place: stage.viewport.point(pixel), byKey: true });
}

const distance = ([ax, ay], [bx, by]) => Math.hypot(ax - bx, ay - by);
