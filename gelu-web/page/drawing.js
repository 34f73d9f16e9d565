// The drawing area: by pointer, by finger, by keyboard.

const PEN = 24;
const STRIDE = 10;

export class Drawing {
  #canvas;
  #context;
  #pen;
  #place;
  #isDown = false;
  #said;

  constructor(canvas, pen, said, changed) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { willReadFrequently: true });
    this.#pen = pen.getContext("2d");
    this.#said = said;
    this.#place = [canvas.width / 2, canvas.height / 4];
    this.changed = changed;
    Object.assign(this.#context, { lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
    let last = null;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#show(false);
      last = at(event);
      this.#line(last, last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      const next = at(event);
      this.#line(last, next);
      last = next;
    });
    const up = () => {
      if (last) this.changed();
      last = null;
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("focus", () => this.#show(canvas.matches(":focus-visible")));
    canvas.addEventListener("blur", () => {
      this.#isDown = false;
      this.#show(false);
    });
  }

  clear() {
    this.#context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#isDown = false;
    this.changed();
  }

  /** Puts ink there, scaled to the area. */
  put(bytes, side) {
    const small = new OffscreenCanvas(side, side);
    const image = new ImageData(side, side);
    bytes.forEach((byte, at) => image.data.set([255, 255, 255, byte], 4 * at));
    small.getContext("2d").putImageData(image, 0, 0);
    this.#context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#context.drawImage(small, 0, 0, this.#canvas.width, this.#canvas.height);
  }

  /** Height and width, and the ink, from 0 to 255. */
  ink() {
    const { width, height } = this.#canvas;
    const { data } = this.#context.getImageData(0, 0, width, height);
    return [[height, width], Uint8Array.from({ length: width * height }, (_, at) => data[4 * at + 3])];
  }

  #line(from, to) {
    this.#context.beginPath();
    this.#context.moveTo(...from);
    this.#context.lineTo(...to);
    this.#context.stroke();
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const [x, y] = this.#place;
    if (event.key in moves) {
      const stride = event.shiftKey ? STRIDE / 2 : STRIDE;
      const limit = (value) => Math.min(this.#canvas.width - PEN / 2, Math.max(PEN / 2, value));
      const next = [limit(x + moves[event.key][0] * stride), limit(y + moves[event.key][1] * stride)];
      if (this.#isDown) {
        this.#line([x, y], next);
        this.changed();
      }
      this.#place = next;
    } else if (event.key === " ") {
      this.#isDown = !this.#isDown;
      this.#said.textContent = this.#isDown ? "The pen is down." : "The pen is up.";
      if (this.#isDown) {
        this.#line(this.#place, this.#place);
        this.changed();
      }
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
      this.#said.textContent = "The drawing is cleared.";
    } else {
      return;
    }
    event.preventDefault();
    this.#show(true);
  }

  #show(isShown) {
    const { width, height } = this.#canvas;
    this.#pen.clearRect(0, 0, width, height);
    if (!isShown) return;
    this.#pen.beginPath();
    this.#pen.arc(...this.#place, PEN / 2, 0, 2 * Math.PI);
    this.#pen.lineWidth = 3;
    this.#pen.strokeStyle = "#fff";
    this.#pen.stroke();
    this.#pen.lineWidth = 1.5;
    this.#pen.strokeStyle = this.#isDown ? "#c33" : "#26a";
    this.#pen.stroke();
  }
}
