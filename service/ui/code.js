// What is on the screen in, the lines that ask the service for the same out: curl for a shell, Python for segserve's client.

/** Endings of the files that views are saved as, after the picture's name. */
const ENDINGS = {
  json: 'json',
  mask: 'mask.png',
  color: 'color.png',
  overlay: 'overlay.png',
  confidence: 'confidence.png',
  rle: 'rle.json',
  polygons: 'polygons.json',
  geojson: 'geojson',
  zip: 'zip',
};

/** The views that there are. */
export const VIEWS = Object.keys(ENDINGS);

const TAKES_CLASSES = new Set(['json', 'overlay', 'rle', 'polygons', 'geojson', 'zip']);

/** The options that a view takes of what is on the screen; null where it would show nothing, as no class is on. */
export function optionsOf(view, { alpha, classes }) {
  const options = {};
  if (view === 'overlay') options.alpha = alpha;
  if (classes === null || !TAKES_CLASSES.has(view)) return options;
  if (classes.length > 0) return { ...options, classes: classes.join(',') };
  return view === 'overlay' ? { alpha: 0 } : null;
}

/** The classes that are on, as the service's `classes=` takes them; null: all of them. */
export function wordsFor(model, isShown) {
  const shown = model.classes.filter(isShown);
  if (shown.length === model.classes.length) return null;
  return shown.map((spec) => (/,|^\s|\s$|^\d+$/.test(spec.name) ? String(spec.id) : spec.name));
}

/** A file's name for a view; an overlay of a JPEG is a JPEG. */
export function fileName(picture, view, type = '') {
  const stem = picture.replace(/\.[^.]*$/, '') || 'picture';
  const ending = view === 'overlay' && type === 'image/jpeg' ? 'overlay.jpg' : ENDINGS[view];
  return `${stem}.${ending}`;
}

/** A line for a shell. */
export function curl({ root, file, view, model, options, withKey }) {
  const query = new URLSearchParams({ output: view, ...options, model }).toString().replaceAll('%2C', ',');
  return [
    `curl -F ${quote(`image=@${curlName(file.name)}`)}`,
    ...(withKey ? ['-H "Authorization: Bearer $SEGSERVE_KEY"'] : []),
    quote(`${root}segment?${query}`),
    `-o ${quote(fileName(file.name, view, file.type))}`,
  ].join(' \\\n  ');
}

/** Lines of Python for segserve.Client. */
export function python({ root, file, view, model, options, withKey }) {
  const text = JSON.stringify;
  const given = Object.entries(options).map(([name, value]) => (
    name === 'classes' ? `classes=[${value.split(',').map(text).join(', ')}]` : `${name}=${value}`
  ));
  const place = text(root.replace(/\/$/, ''));
  const client = withKey ? `${place}, key=os.environ["SEGSERVE_KEY"]` : place;
  return [
    ...(withKey ? ['import os', ''] : []),
    'from segserve import Client',
    '',
    `with Client(${client}) as client:`,
    `    seen = client.segment(${text(file.name)}, model=${text(model)})`,
    `    seen.view(${[text(view), ...given].join(', ')}).save(${text(fileName(file.name, view, file.type))})`,
  ].join('\n');
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const curlName = (name) => (/^[\w. -]+$/.test(name) ? name : `"${name.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`);
