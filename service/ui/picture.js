// A picture file in, what the browser can show of it out: the whole of it, or of a large one as much as fits the screen.

const LARGE = 1 << 18; // bytes
const FINEST = 4; // eighths of the sides of a JPEG: with more, too little would be saved

/**
 * A picture as a person sees it (EXIF turned), `width` by `height`; null where the browser cannot show it. `image`: an element
 * that has been loaded, or `small`: a canvas that has more pixels than the picture in a box of [width, height] screen pixels,
 * decoded so in a third of the time. Whoever gets it revokes the `url`, from which the whole can be loaded.
 */
export async function opened(blob, box) {
  const small = await smallOf(blob, box).catch(() => null);
  const url = URL.createObjectURL(blob);
  if (small) return { url, ...small };
  const image = new Image();
  const loaded = new Promise((resolve) => {
    image.onload = () => resolve(true);
    image.onerror = () => resolve(false);
  });
  image.src = url; // not decoded yet: it takes less at the size it is shown in
  if (await loaded) return { url, image, width: image.naturalWidth, height: image.naturalHeight };
  URL.revokeObjectURL(url);
  return null;
}

async function smallOf(blob, box) {
  if (blob.size < LARGE || blob.type !== 'image/jpeg' || !globalThis.ImageDecoder) return null;
  const data = await blob.arrayBuffer();
  const sides = sidesOf(new DataView(data));
  const scale = Math.max(...[sides, sides.toReversed()].map(([width, height]) => Math.min(box[0] / width, box[1] / height)));
  const eighths = Math.max(1, Math.ceil(8 * scale)); // it may be turned
  if (!(eighths <= FINEST)) return null;
  const [desiredWidth, desiredHeight] = sides.map((side) => Math.ceil((side * eighths) / 8) + 1); // too few by a hair are halved
  if (desiredWidth === desiredHeight && sides[0] !== sides[1]) return null; // nobody could tell whether it is
  const decoder = new ImageDecoder({ data, type: blob.type, desiredWidth, desiredHeight });
  const { image: frame } = await decoder.decode().finally(() => decoder.close());
  const [width, height] = frame.displayWidth > frame.displayHeight === sides[0] > sides[1] ? sides : sides.toReversed();
  return { width, height, small: drawn(frame, desiredWidth * desiredHeight) };
}

/** Width and height as a JPEG's first frame header says, before it is turned; NaN where there is none. */
function sidesOf(view) {
  for (let at = 2; at + 9 < view.byteLength && view.getUint8(at) === 255; at += 2 + view.getUint16(at + 2)) {
    const marker = view.getUint16(at) - 0xffc0;
    if (marker === 0 || (marker > 0 && marker < 16 && marker % 4)) return [view.getUint16(at + 7), view.getUint16(at + 5)];
  }
  return [NaN, NaN];
}

/** A canvas of the frame, of no more than so many pixels: a decoder may not care for the sides that are desired. */
function drawn(frame, pixels) {
  const { displayWidth, displayHeight } = frame;
  const shrink = Math.min(1, Math.sqrt(pixels / (displayWidth * displayHeight)));
  const [width, height] = [displayWidth, displayHeight].map((side) => Math.round(side * shrink));
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  canvas.getContext('2d').drawImage(frame, 0, 0, width, height);
  frame.close();
  return canvas;
}
