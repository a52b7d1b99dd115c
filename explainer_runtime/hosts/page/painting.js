// The picture that was chosen, and a brush on it: which of the model's pixels may change.

import {element} from "./options.js";

// The part of a picture that becomes a row, in its pixels: left, top, width, height. As the server cuts it.
export function seen(wide, tall, [rows, columns], resize) {
  if (resize !== "centre_crop") return [0, 0, wide, tall];
  const scale = Math.min(wide / columns, tall / rows);
  const width = Math.min(wide, Math.max(1, Math.round(columns * scale)));
  const height = Math.min(tall, Math.max(1, Math.round(rows * scale)));
  return [Math.floor((wide - width) / 2), Math.floor((tall - height) / 2), width, height];
}

export class Painting {
  // frame: where the picture stands; tools: where the brush's buttons do.
  constructor(frame, tools) {
    this.frame = frame;
    this.tools = tools;
    this.users = new Set();
    this.mask = null;
    this.at = null;
  }

  // Show another picture, an image that is loaded, of which a row has so many rows and columns.
  open(image, inputs) {
    const shape = inputs.layout === "channels_first" ? inputs.shape.slice(1) : inputs.shape.slice(0, 2);
    [this.rows, this.columns] = shape;
    this.inputs = inputs;
    this.mask = new Uint8Array(this.rows * this.columns);
    this.at = [this.rows >> 1, this.columns >> 1];
    this.canvas = element("canvas", {width: this.columns, height: this.rows, tabIndex: 0, role: "application",
      "aria-label": "Brush: arrow keys move, space paints, delete wipes", "aria-describedby": "brush-said"});
    const box = seen(image.naturalWidth, image.naturalHeight, shape, inputs.resize);
    const share = [box[0] / image.naturalWidth, box[1] / image.naturalHeight,
      box[2] / image.naturalWidth, box[3] / image.naturalHeight].map(one => `${100 * one}%`);
    [this.canvas.style.left, this.canvas.style.top, this.canvas.style.width, this.canvas.style.height] = share;
    image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= 64);
    this.frame.replaceChildren(image, this.canvas);
    this.frame.hidden = false;
    this.#listen();
    this.#build();
    this.#draw();
  }

  // Whether the brush is wanted, by the box of one explainer's form.
  show(box) {
    this.users[box.checked ? "add" : "delete"](box);
    this.#draw();
  }

  // What was painted, as the option `region`; nothing painted is an error to say.
  read() {
    if (!this.mask?.some(Boolean)) throw new Error("Paint on the picture first: nothing may change yet.");
    const truths = Array.from({length: this.rows}, (_, row) =>
      Array.from(this.mask.subarray(row * this.columns, (row + 1) * this.columns), Boolean));
    if (this.inputs.layout === "channels_first") return [truths];
    return this.inputs.shape.length === 2 ? truths : truths.map(row => row.map(one => [one]));
  }

  #build() {
    this.size = element("input", {type: "range", min: 1, max: Math.max(2, this.rows >> 2), id: "brush-size",
      value: Math.max(1, Math.round(this.rows / 14))});
    this.wipes = element("input", {type: "checkbox"});
    this.told = element("p", {className: "help", id: "brush-said"});
    const button = (textContent, value) => element("button", {type: "button", className: "button", textContent,
      onclick: () => { this.mask.fill(value); this.#draw(); }});
    this.tools.replaceChildren(element("h3", {textContent: "Brush"}), this.told,
      element("label", {className: "field", htmlFor: "brush-size"}, "Size ", this.size),
      element("label", {className: "tick"}, this.wipes, "wipe away"),
      element("div", {className: "buttons"}, button("All of it", 1), button("Nothing", 0)));
  }

  #listen() {
    const paint = (event, begins) => {
      const box = this.canvas.getBoundingClientRect();
      const to = [Math.floor((event.clientY - box.top) / box.height * this.rows),
        Math.floor((event.clientX - box.left) / box.width * this.columns)];
      const from = begins ? to : this.at;
      const steps = Math.max(1, Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]));
      for (let step = 1; step <= steps; step++) {  // a fast pointer tells of few places: the line between them counts
        this.at = [0, 1].map(axis => Math.round(from[axis] + (to[axis] - from[axis]) * step / steps));
        this.#paint(this.wipes.checked ? 0 : 1);
      }
      this.#draw();
    };
    this.canvas.onpointerdown = event => {
      event.preventDefault();
      this.canvas.focus();
      this.canvas.setPointerCapture(event.pointerId);
      paint(event, true);
    };
    this.canvas.onpointermove = event => { if (event.buttons) paint(event, false); };
    const moves = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
    this.canvas.onkeydown = event => {
      const move = moves[event.key];
      if (move) {
        const within = (value, most) => Math.min(most - 1, Math.max(0, value));
        this.at = [within(this.at[0] + move[0], this.rows), within(this.at[1] + move[1], this.columns)];
      } else if (event.key === " ") this.#paint(1);
      else if (event.key === "Delete" || event.key === "Backspace") this.#paint(0);
      else return;
      this.#draw();
      event.preventDefault();
    };
  }

  #paint(value) {
    const reach = Number(this.size.value) / 2;
    for (let row = 0; row < this.rows; row++) {
      for (let column = 0; column < this.columns; column++) {
        const far = Math.hypot(row - this.at[0], column - this.at[1]);
        if (far < Math.max(reach, 0.5)) this.mask[row * this.columns + column] = value;
      }
    }
  }

  #draw() {
    if (this.mask === null) return;
    const wanted = this.users.size > 0;
    this.tools.hidden = this.canvas.hidden = !wanted;
    const context = this.canvas.getContext("2d");
    const pixels = context.createImageData(this.columns, this.rows);
    this.mask.forEach((on, index) => pixels.data.set(on ? [255, 122, 0, 130] : [0, 0, 0, 0], 4 * index));
    context.putImageData(pixels, 0, 0);
    if (document.activeElement === this.canvas) {
      context.strokeStyle = "#0af";
      context.lineWidth = Math.max(1, this.rows / 112);
      context.strokeRect(this.at[1] + .5 - .5, this.at[0], 1, 1);
    }
    const count = this.mask.reduce((sum, on) => sum + on, 0);
    this.told.textContent = `${count} of ${this.mask.length} pixels may change. `
      + `At row ${this.at[0] + 1}, column ${this.at[1] + 1}.`;
  }
}
