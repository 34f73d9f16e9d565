// From pictures to what a network takes, as /v1/models says: pixels from 0 to 1, then its normalization.

import { normalizeDigit, resize, SIDE } from "./digit.js";

/** Longer sides of pictures are scaled down to this before anything else. */
const MOST = 1024;

/** Channels, height and width of a network's input; null where it takes no pictures. */
export function shapeOf(model) {
  const [channels, height, width] = model.input;
  const isPicture = model.input.length === 3 && (channels === 1 || channels === 3) && !model.preprocessing?.columns;
  return isPicture ? { channels, height, width } : null;
}

/** Whether it reads single digits in the form of MNIST. */
export function readsDigits(model) {
  const shape = shapeOf(model);
  return Boolean(model.preprocessing?.pixels?.digits) && shape?.height === SIDE && shape.width === SIDE;
}

/** Inputs of bytes, channel by channel. */
export function inputOf(model, bytes) {
  const { channels } = shapeOf(model);
  const normalization = model.preprocessing?.pixels?.normalization;
  const plane = bytes.length / channels;
  return Float32Array.from(bytes, (byte, at) => {
    const channel = Math.floor(at / plane);
    const pixel = byte / 255;
    return normalization ? (pixel - normalization.mean[channel]) / normalization.std[channel] : pixel;
  });
}

/** A picture file as bytes of the network's input, channel by channel. */
export async function readPicture(file, model) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is no picture that this browser can read`);
  }
  const scale = Math.min(1, MOST / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((extent) => Math.max(1, Math.round(extent * scale)));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const shape = shapeOf(model);
  const plane = (of) => Uint8Array.from({ length: width * height }, (_, at) => of(data[4 * at], data[4 * at + 1], data[4 * at + 2]));
  const grey = () => plane((red, green, blue) => Math.round(0.2126 * red + 0.7152 * green + 0.0722 * blue));
  if (readsDigits(model)) return digitOf([height, width], grey());
  const planes = shape.channels === 1 ? [grey()] : [0, 1, 2].map((at) => plane((...colors) => colors[at]));
  const made = planes.map((pixels) => resize([height, width], pixels, [shape.height, shape.width]));
  return Uint8Array.from(made.flatMap((pixels) => [...pixels]));
}

/** Ink on paper of whichever is darker, cut at a part of the contrast. */
function digitOf(size, grey) {
  const sorted = Uint8Array.from(grey).sort();
  const paper = sorted[sorted.length >> 1];
  const [low, high] = [sorted[0], sorted[sorted.length - 1]];
  const isDark = paper - low > high - paper;
  const contrast = isDark ? paper - low : high - paper;
  if (contrast < 24) throw new Error("no digit can be told from its paper in that picture");
  const ink = grey.map((pixel) => {
    const part = Math.max(0, isDark ? paper - pixel : pixel - paper) / contrast;
    return part < 0.3 ? 0 : Math.min(255, Math.round(255 * part));
  });
  return normalizeDigit(size, ink);
}
