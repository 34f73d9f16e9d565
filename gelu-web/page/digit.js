// Ink in the form of MNIST: cut out, scaled to 20 pixels, placed by its mass in 28 x 28. The same numbers as
// gelu-io/src/digits/normalize.rs, in its precision; tests/digit.test.js holds both to the same digits.

export const SIDE = 28;
const INK_SIDE = 20;
const f = Math.fround;

/** Bright ink on black, row by row, in the form of MNIST; null without ink. */
export function normalizeDigit([height, width], ink) {
  let top = height, bottom = -1, left = width, right = -1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (ink[y * width + x] === 0) continue;
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
      left = Math.min(left, x);
      right = Math.max(right, x);
    }
  }
  if (bottom < 0) return null;
  const size = [bottom - top + 1, right - left + 1];
  const cut = new Uint8Array(size[0] * size[1]);
  for (let y = 0; y < size[0]; y++) {
    const from = (top + y) * width + left;
    cut.set(ink.slice(from, from + size[1]), y * size[1]);
  }
  return centered(scaled(size, cut));
}

/** The picture with its longer side at 20 pixels. */
function scaled([height, width], pixels) {
  const scale = INK_SIDE / Math.max(height, width);
  const size = [height, width].map((extent) => Math.min(INK_SIDE, Math.max(1, Math.round(extent * scale))));
  return { size, pixels: resize([height, width], pixels, size) };
}

/** Scales by triangles around each pixel's own place. */
export function resize([height, width], pixels, size) {
  const columns = new Float32Array(size[0] * width);
  shares(height, size[0]).forEach(([first, weights], y) => {
    weights.forEach((weight, at) => {
      for (let x = 0; x < width; x++) {
        const sum = y * width + x;
        columns[sum] = f(columns[sum] + f(pixels[(first + at) * width + x] * weight));
      }
    });
  });
  const across = shares(width, size[1]);
  const made = new Uint8Array(size[0] * size[1]);
  for (let y = 0; y < size[0]; y++) {
    across.forEach(([first, weights], x) => {
      const sum = weights.reduce((sum, weight, at) => f(sum + f(columns[y * width + first + at] * weight)), 0);
      made[y * size[1] + x] = Math.floor(Math.min(255, Math.max(0, sum)) + 0.5);
    });
  }
  return made;
}

function centered({ size, pixels }) {
  const brightest = pixels.reduce((most, pixel) => Math.max(most, pixel), 0);
  if (brightest === 0) return null;
  let mass = 0;
  const moment = [0, 0];
  pixels.forEach((pixel, at) => {
    mass += pixel;
    moment[0] += pixel * (Math.floor(at / size[1]) + 0.5);
    moment[1] += pixel * ((at % size[1]) + 0.5);
  });
  const [down, right] = [0, 1].map((axis) =>
    Math.min(SIDE - size[axis], Math.max(0, Math.round(SIDE / 2 - moment[axis] / mass))));
  const digit = new Uint8Array(SIDE * SIDE);
  pixels.forEach((pixel, at) => {
    const [y, x] = [Math.floor(at / size[1]) + down, (at % size[1]) + right];
    digit[y * SIDE + x] = Math.floor((pixel * 255) / brightest);
  });
  return digit;
}

/** For each of `to` pixels the first of `from` that it is made of, and the shares of that and those after it. */
function shares(from, to) {
  const ratio = f(from / to);
  const reach = Math.max(ratio, 1);
  return Array.from({ length: to }, (_, at) => {
    const place = f(f(at + 0.5) * ratio);
    const first = Math.min(from - 1, Math.max(0, Math.floor(f(place - reach))));
    const end = Math.min(from, Math.max(first + 1, Math.ceil(f(place + reach))));
    const heights = [];
    for (let pixel = first; pixel < end; pixel++) {
      const away = Math.abs(f(f(pixel - f(place - 0.5)) / reach));
      heights.push(Math.max(0, f(1 - away)));
    }
    const sum = heights.reduce((sum, height) => f(sum + height), 0);
    return [first, heights.map((height) => f(height / sum))];
  });
}
