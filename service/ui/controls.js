// Controls by name in, what they say out; the divider of the swipe and the buttons of the zoom do what they say themselves.

import { byId, percent } from './dom.js';

const STEP = 3; // percent of the width that an arrow key moves the divider by
const ZOOM = 1.5;

/** Let the divider be dragged, and moved by keys. */
export function listenToDivider(stage) {
  const { divider, view } = stage;
  divider.addEventListener('pointerdown', (event) => divider.setPointerCapture(event.pointerId));
  divider.addEventListener('pointermove', (event) => {
    if (!divider.hasPointerCapture(event.pointerId)) return;
    const box = view.getBoundingClientRect();
    stage.setSplit((100 * (event.clientX - box.left)) / box.width);
  });
  divider.addEventListener('keydown', (event) => {
    const places = {
      ArrowLeft: stage.split - STEP,
      ArrowDown: stage.split - STEP,
      ArrowRight: stage.split + STEP,
      ArrowUp: stage.split + STEP,
      Home: 0,
      End: 100,
    };
    if (!(event.key in places)) return;
    event.preventDefault();
    stage.setSplit(places[event.key]);
  });
}

/** Let the buttons zoom. */
export function listenToZoom(stage, group) {
  const acts = {
    in: (viewport) => viewport.zoom(ZOOM),
    out: (viewport) => viewport.zoom(1 / ZOOM),
    fit: (viewport) => viewport.fit(),
  };
  group.addEventListener('click', ({ target }) => target.dataset.zoom && stage.move(acts[target.dataset.zoom]));
}

/** Say how large the picture is shown. */
export function showScale(output, view, viewport) {
  output.textContent = percent(viewport.scale);
  view.classList.toggle('zoomed', !viewport.fitted);
}

/** The value of the radio button that is chosen among those of that name. */
export function chosen(name) {
  return document.querySelector(`[name=${name}]:checked`).value;
}

/** Choose that one. */
export function choose(name, value) {
  document.querySelector(`[name=${name}][value=${value}]`).checked = true;
}

/** Elements by id, each under its id or, as in `list:classes`, under the name before the colon. */
export function parts(...names) {
  return Object.fromEntries(names.map((name) => [name.split(':')[0], byId(name.split(':').pop())]));
}
