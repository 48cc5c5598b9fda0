/* The drawing canvas of the drag editor: a photograph on which drags and a mask are drawn, all in the browser.
 *
 * The sections: geometry, sketch, raster (pure, tested by `node --test`); drawing; what the views of a widget
 * share; actions (keys and buttons, one table); the view, with its gestures; anywidget's entry.
 * Points of a picture are [x, y] in its pixels, with pixel centres at integers; points of the screen are CSS
 * pixels from the canvas' corner. State is replaced, never mutated: an undo is the old object again.
 */

// ---- geometry: a viewport {scale, x, y} puts the picture's corner at (x, y), `scale` CSS pixels per pixel

const MOST_ZOOM = 32; // CSS pixels per pixel of the picture

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const round = (value) => Math.round(value * 100) / 100 + 0; // + 0: no negative zero on the wire
const distance = ([ax, ay], [bx, by]) => Math.hypot(bx - ax, by - ay);
const middle = ([ax, ay], [bx, by]) => [(ax + bx) / 2, (ay + by) / 2];

export const imageToScreen = ({ scale, x, y }, [px, py]) => [(px + 0.5) * scale + x, (py + 0.5) * scale + y];

export const screenToImage = ({ scale, x, y }, [sx, sy]) => [(sx - x) / scale - 0.5, (sy - y) / scale - 0.5];

/** The nearest point of a picture {width, height}, to two decimals. */
export const clampToImage = ([x, y], { width, height }) => [
  round(clamp(x, -0.5, width - 0.5)),
  round(clamp(y, -0.5, height - 0.5)),
];

export const isInside = ([x, y], { width, height }) =>
  x >= -0.5 && y >= -0.5 && x <= width - 0.5 && y <= height - 0.5;

/** The viewport that shows the whole picture, as large as the box {width, height} allows, in its middle. */
export function fit(picture, box) {
  const scale = Math.min(box.width / picture.width, box.height / picture.height);
  return settle({ scale, x: 0, y: 0 }, picture, box);
}

/** Shift a viewport so that the picture fills the box, or lies in its middle where it is smaller. */
export function settle({ scale, x, y }, picture, box) {
  const along = (offset, room) => (room >= 0 ? room / 2 : clamp(offset, room, 0));
  return {
    scale,
    x: along(x, box.width - picture.width * scale),
    y: along(y, box.height - picture.height * scale),
  };
}

/** Zoom by a factor; what is shown at the point `at` of the screen stays there as far as `settle` lets it. */
export function zoomAt(viewport, factor, at, picture, box) {
  const least = fit(picture, box).scale;
  const scale = clamp(viewport.scale * factor, least, Math.max(least, MOST_ZOOM));
  const ratio = scale / viewport.scale;
  const [x, y] = [at[0] - (at[0] - viewport.x) * ratio, at[1] - (at[1] - viewport.y) * ratio];
  return settle({ scale, x, y }, picture, box);
}

/** What two fingers do: `before` and `after` are pairs of points of the screen. */
export function pinch(viewport, before, after, picture, box) {
  const [from, to] = [middle(...before), middle(...after)];
  const moved = { ...viewport, x: viewport.x + to[0] - from[0], y: viewport.y + to[1] - from[1] };
  return zoomAt(moved, distance(...after) / Math.max(distance(...before), 1), to, picture, box);
}

/** Which end of which drag lies at a point of the screen: {index, end} of the nearest within `reach`, or null.
 * Where several are as near, targets come before handles, so that an anchor can be pulled out, and later before
 * earlier ones, as they are drawn. */
export function hitTest(drags, viewport, at, reach) {
  let [best, nearest] = [null, reach];
  ["handle", "target"].forEach((end, which) =>
    drags.forEach((drag, index) => {
      const away = distance(imageToScreen(viewport, drag[which]), at);
      if (away <= nearest) [best, nearest] = [{ index, end }, away];
    }),
  );
  return best;
}

// ---- sketch: {picture, drags: [[handle, target], ...], mask: [operation, ...]}, its actions, and its history

export const emptySketch = () => ({ picture: 0, drags: [], mask: [] });

/** Whether two values of JSON are equal. */
export function same(a, b) {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || !a || !b) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const [of, keys] = [Object.keys(b), Object.keys(a)];
  return keys.length === of.length && keys.every((key) => key in b && same(a[key], b[key]));
}

/** The sketch after an action of the user; the same object if the action changes nothing. */
export function apply(sketch, action) {
  const { drags, mask } = sketch;
  switch (action.type) {
    case "add":
      return { ...sketch, drags: [...drags, [action.handle, action.target]] };
    case "move": {
      const old = drags[action.index];
      const moved = old && (action.end === "handle" ? [action.to, old[1]] : [old[0], action.to]);
      return same(old, moved) ? sketch : { ...sketch, drags: drags.with(action.index, moved) };
    }
    case "remove":
      if (!(action.index in drags)) return sketch;
      return { ...sketch, drags: drags.filter((_, index) => index !== action.index) };
    case "mask":
      return { ...sketch, mask: [...mask, action.op] };
    case "clear":
      return sketch[action.what].length ? { ...sketch, [action.what]: [] } : sketch;
    case "replace":
      return same(sketch, action.sketch) ? sketch : action.sketch;
  }
  throw new Error(`there is no such action on a sketch: ${action.type}`);
}

export const emptyHistory = (sketch = emptySketch()) => ({ past: [], present: sketch, future: [] });

/** The history {past, present, future: the next one last} after an action of `apply`, "undo" or "redo". */
export function reduce(history, action) {
  const { past, present, future } = history;
  if (action.type === "undo") {
    if (!past.length) return history;
    return { past: past.slice(0, -1), present: past.at(-1), future: [...future, present] };
  }
  if (action.type === "redo") {
    if (!future.length) return history;
    return { past: [...past, present], present: future.at(-1), future: future.slice(0, -1) };
  }
  const next = apply(present, action);
  return next === present ? history : { past: [...past, present], present: next, future: [] };
}

const point = ([x, y]) => `${Number(x.toFixed(1))}, ${Number(y.toFixed(1))}`;
const count = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;

export function describeDrag([handle, target], index) {
  const where = same(handle, target) ? `anchor at ${point(handle)}` : `from ${point(handle)} to ${point(target)}`;
  return `Drag ${index + 1}: ${where}`;
}

/** What an action has done, for those who do not see it. */
export function describe(action, { drags, mask }) {
  const { type, op, index } = action;
  if (type === "add") return describeDrag(drags.at(-1), drags.length - 1);
  if (type === "move") return describeDrag(drags[index], index);
  if (type === "remove") return `Drag ${index + 1} removed, ${count(drags.length, "drag")} left`;
  if (type === "clear") return action.what === "drags" ? "All drags removed" : "No mask: everything may change";
  if (op?.op === "stroke") return op.value ? "Brushed: this may change" : "Erased: this stays";
  if (op?.op === "fill") return op.value ? "Everything may change" : "Nothing may change";
  if (op?.op === "invert") return "Mask inverted";
  const state = `${count(drags.length, "drag")}, ${mask.length ? "a mask" : "no mask"}`;
  return `${{ undo: "Undone", redo: "Redone" }[type] ?? "Changed by the notebook"}: ${state}`;
}

// ---- raster: a mask as pixels, 1 where the picture may change

const STAYS = 0x8c241a14; // how what stays is shown, as alpha, blue, green, red: dark, 55 %
const FINEST = 0.8e6; // pixels; a larger picture's mask is shown on a coarser grid

const mayChange = (mask) => (mask[0]?.op === "stroke" && mask[0].value === 1 ? 0 : 1); // before the first one

/** Set the pixels whose centre is at most `radius` from the segment a-b: bit for bit what Python paints. */
function paintSegment(raster, { width, height }, [ax, ay], [bx, by], radius, value) {
  const [dx, dy] = [bx - ax, by - ay];
  const n = dx * dx + dy * dy;
  const reach = (a, b, length) => [
    Math.max(0, Math.floor(Math.min(a, b) - radius)),
    Math.min(length - 1, Math.ceil(Math.max(a, b) + radius)),
  ];
  const [[left, right], [top, bottom]] = [reach(ax, bx, width), reach(ay, by, height)];
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      const t = n === 0 ? 0 : clamp(((x - ax) * dx + (y - ay) * dy) / n, 0, 1);
      const [ex, ey] = [x - (ax + t * dx), y - (ay + t * dy)];
      if (ex * ex + ey * ey <= radius * radius) raster[y * width + x] = value;
    }
  }
}

/** Paint one operation into a raster; of a stroke only what lies behind its first `done` points.
 * `images`: the pixels, 0 or 1, of the PNGs that "image" operations hold; one that is missing paints nothing. */
function paint(raster, grid, operation, images, done = 0) {
  const { op, points, radius, value } = operation;
  if (op === "fill") raster.fill(value);
  else if (op === "invert") raster.forEach((pixel, k) => (raster[k] = 1 - pixel));
  else if (op === "image") raster.set(images.get(operation.png) ?? []);
  else if (points.length === 1) paintSegment(raster, grid, points[0], points[0], radius, value);
  else for (let k = Math.max(done, 1); k < points.length; k++)
    paintSegment(raster, grid, points[k - 1], points[k], radius, value);
}

/** Rasterise a mask on a grid {width, height}, row by row; null where there is none. */
export function rasterise(mask, grid, images = new Map()) {
  if (!mask.length) return null;
  const raster = new Uint8Array(grid.width * grid.height).fill(mayChange(mask));
  for (const operation of mask) paint(raster, grid, operation, images);
  return raster;
}

/** How many operations of `mask` a raster of `old` has already, and how much of the next one, a growing stroke:
 * [operations, points], or null if it has something that `mask` has not. */
export function progress(old, mask) {
  const shared = old.findIndex((operation, k) => operation !== mask[k]);
  if (shared < 0) return [old.length, 0];
  const [was, is] = [old[shared], mask[shared]];
  const grows =
    shared === old.length - 1 && was.op === "stroke" && is?.op === "stroke" && was.radius === is.radius &&
    was.value === is.value && was.points.every((p, k) => p === is.points[k]);
  return grows ? [shared, was.points.length] : null;
}

/** The points of a stroke with another one, unless that is nearer to the last than a quarter of the radius. */
export function lengthen(points, next, radius) {
  return distance(points.at(-1), next) > radius / 4 ? [...points, next] : points;
}

/** The border between 0 and 1, in pieces [x, y, x, y] between corners of pixels as long as rows and columns go. */
export function border(raster, { width, height }) {
  const segments = [];
  const scan = (lines, length, differs, segment) => {
    for (let line = 1; line < lines; line++) {
      for (let k = 0, start = -1; k <= length; k++) {
        const edge = k < length && differs(line, k);
        if (edge && start < 0) start = k;
        if (!edge && start >= 0) {
          segments.push(segment(line, start, k));
          start = -1;
        }
      }
    }
  };
  scan(height, width, (y, x) => raster[y * width + x] !== raster[(y - 1) * width + x], (y, a, b) => [a, y, b, y]);
  scan(width, height, (x, y) => raster[y * width + x] !== raster[y * width + x - 1], (x, a, b) => [x, a, x, b]);
  return segments;
}

/** A mask as the canvas shows it: kept while it stays the same, and only what is new is painted. */
class MaskLayer {
  constructor(onDecoded) {
    Object.assign(this, { onDecoded, mask: null, size: "", raster: null, canvas: null, path: null });
    this.images = new Map();
  }

  /** Bring the layer up to a mask (not empty) of a picture. */
  update(mask, picture) {
    const size = `${picture.width} x ${picture.height}`;
    if (mask === this.mask && size === this.size) return;
    const shrink = Math.min(1, Math.sqrt(FINEST / (picture.width * picture.height)));
    const grid = { width: Math.ceil(picture.width * shrink), height: Math.ceil(picture.height * shrink) };
    if (size !== this.size) Object.assign(this, { mask: null, images: new Map() });
    const [done, points] = (this.mask?.length && progress(this.mask, mask)) || [0, 0];
    if (!done && !points) this.raster = new Uint8Array(grid.width * grid.height).fill(mayChange(mask));
    mask.slice(done).forEach((operation, k) => {
      if (operation.op === "image" && !this.images.has(operation.png))
        this.decode(operation.png, grid, this.images).then(() => this.onDecoded(), this.onDecoded);
      paint(this.raster, grid, shrunk(operation, shrink), this.images, k ? 0 : points);
    });
    const nothingNew = mask.length === done && mask.length === this.mask?.length;
    Object.assign(this, { mask, size });
    if (!nothingNew) this.colour(grid);
  }

  colour(grid) {
    this.canvas ??= document.createElement("canvas");
    Object.assign(this.canvas, grid);
    const pixels = new Uint32Array(this.raster.length);
    this.raster.forEach((pixel, k) => (pixels[k] = pixel ? 0 : STAYS));
    this.canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), grid.width), 0, 0);
    this.path = new Path2D();
    const segments = border(this.raster, grid);
    if (segments.length > 50_000) return; // noise, not a shape: no line helps
    for (const [ax, ay, bx, by] of segments) {
      this.path.moveTo(ax, ay);
      this.path.lineTo(bx, by);
    }
  }

  async decode(png, grid, images) {
    images.set(png, []); // nothing yet
    const bitmap = await createImageBitmap(new Blob([Uint8Array.from(atob(png), (c) => c.charCodeAt(0))]));
    const context = new OffscreenCanvas(grid.width, grid.height).getContext("2d");
    context.drawImage(bitmap, 0, 0, grid.width, grid.height);
    const { data } = context.getImageData(0, 0, grid.width, grid.height);
    images.set(png, Uint8Array.from({ length: grid.width * grid.height }, (_, k) => (data[4 * k] >= 128 ? 1 : 0)));
    this.mask = null; // paint it again
  }
}

function shrunk(operation, shrink) {
  if (operation.op !== "stroke" || shrink === 1) return operation;
  const points = operation.points.map(([x, y]) => [(x + 0.5) * shrink - 0.5, (y + 0.5) * shrink - 0.5]);
  return { ...operation, points, radius: operation.radius * shrink };
}

// ---- drawing: on a 2D context in CSS pixels; sizes on the screen do not depend on the zoom

const [HANDLE, TARGET, SELECTED, DARK] = ["#d55e00", "#56b4e9", "#ffd400", "rgb(0 0 0 / 0.75)"];
const FEW = 20; // drags that get a number

function outlined(context, path, { width = 2, colour = "white", dark = 1.25 }) {
  Object.assign(context, { lineWidth: width + 2 * dark, strokeStyle: DARK });
  context.stroke(path);
  Object.assign(context, { lineWidth: width, strokeStyle: colour });
  context.stroke(path);
}

/** Add an arrow from a to b to a path; `short` is left free at its start, `before` at its tip. */
function addArrow(path, a, b, head, short = 0, before = 0) {
  const length = distance(a, b);
  if (length <= short + before) return;
  const [ux, uy] = [(b[0] - a[0]) / length, (b[1] - a[1]) / length];
  const tip = [b[0] - ux * before, b[1] - uy * before];
  path.moveTo(a[0] + ux * short, a[1] + uy * short);
  path.lineTo(...tip);
  const wing = Math.min(head, length / 2);
  for (const side of [-0.5, 0.5]) {
    path.moveTo(...tip);
    path.lineTo(tip[0] - wing * (ux + side * uy), tip[1] - wing * (uy - side * ux));
  }
}

const circles = (points, radius) => {
  const path = new Path2D();
  for (const [x, y] of points) {
    path.moveTo(x + radius, y);
    path.arc(x, y, radius, 0, 2 * Math.PI);
  }
  return path;
};

function drawDrags(context, drags, viewport, selection, hover) {
  const ends = drags.map(([handle, target]) => [imageToScreen(viewport, handle), imageToScreen(viewport, target)]);
  const small = drags.length > 60;
  const [ring, dot] = small ? [4.5, 3.5] : [6.5, 5];
  Object.assign(context, { lineCap: "round", lineJoin: "round" });
  const shafts = new Path2D();
  for (const [handle, target] of ends) addArrow(shafts, handle, target, small ? 7 : 10, ring + 2, dot + 1.5);
  outlined(context, shafts, { width: small ? 1.5 : 2.25 });

  const chosen = selection && ends[selection.index];
  if (chosen) {
    const shaft = new Path2D();
    addArrow(shaft, ...chosen, 10, ring + 2, dot + 1.5);
    outlined(context, shaft, { width: 2.75, colour: SELECTED });
    outlined(context, circles(chosen, ring + 3.5), { width: 1.75, colour: SELECTED });
  }
  const anchored = drags.map(([handle, target]) => same(handle, target)); // a ring around the dot
  for (const [radius, held] of [[ring, false], [ring + 3, true]]) {
    const handles = ends.filter((_, k) => anchored[k] === held).map(([handle]) => handle);
    outlined(context, circles(handles, radius), { width: 2 });
    Object.assign(context, { lineWidth: 2, strokeStyle: HANDLE });
    context.stroke(circles(handles, radius - 1.25));
  }
  const dots = circles(ends.map(([, target]) => target), dot);
  outlined(context, dots, { width: 2 });
  context.fillStyle = TARGET;
  context.fill(dots);
  for (const [one, radius] of [[chosen && selection, ring + 3.5], [ends[hover?.index] && hover, ring + 2.5]]) {
    if (!one) continue; // the end that the keys move is marked more strongly; the one beneath the pointer is ringed
    const at = ends[one.index][one.end === "handle" ? 0 : 1];
    outlined(context, circles([at], radius), { width: 3, colour: one === hover ? "white" : SELECTED });
  }
  if (drags.length > 1 && drags.length <= FEW) drawNumbers(context, ends);
}

function drawNumbers(context, ends) {
  Object.assign(context, { font: "600 12px system-ui, sans-serif", textAlign: "center", textBaseline: "middle" });
  Object.assign(context, { lineWidth: 3.5, strokeStyle: DARK, fillStyle: "white" });
  ends.forEach(([[x, y], target], index) => {
    const side = target[0] > x ? -1 : 1; // away from the shaft
    context.strokeText(index + 1, x + side * 16, y - 10);
    context.fillText(index + 1, x + side * 16, y - 10);
  });
}

function drawFlowArrows(context, arrows, viewport) {
  const path = new Path2D();
  for (const [x, y, dx, dy] of arrows) {
    const [from, to] = [imageToScreen(viewport, [x, y]), imageToScreen(viewport, [x + dx, y + dy])];
    if (distance(from, to) > 2) addArrow(path, from, to, 6);
  }
  outlined(context, path, { width: 1.25, dark: 1, colour: "#f4f4f4" });
}

// ---- what the views of a widget share: the history, the decoded pictures, and the messages

/** Decode what arrives; a newer one is never followed by an older one. */
class Slot {
  #asked = 0;
  #shown = 0;
  bitmap = null;

  async load(data, onShown) {
    const turn = ++this.#asked;
    const bitmap = data?.byteLength ? await createImageBitmap(new Blob([data])) : null;
    if (turn < this.#shown) return bitmap?.close();
    this.bitmap?.close();
    Object.assign(this, { bitmap });
    this.#shown = turn;
    onShown();
  }

  close() {
    this.#shown = Infinity;
    this.bitmap?.close();
    this.bitmap = null;
  }
}

class Shared {
  constructor(model) {
    this.model = model;
    this.views = new Set();
    this.history = emptyHistory(model.get("sketch"));
    this.pictures = new Map(); // by id: what undo goes back to is there even while the kernel is busy
    this.slots = { preview: new Slot(), flow: new Slot(), after: new Slot() };
    this.listeners = {
      "change:picture": () => this.loadPicture(),
      "change:preview": () => this.loadPreview(),
      "change:after": () => this.load(this.slots.after, model.get("after").data),
      "change:sketch": () => this.follow(),
      "msg:custom": (message, buffers) => this.receive(message, buffers),
    };
    for (const name of ["tool", "radius", "view", "split", "flow_view"])
      this.listeners[`change:${name}`] = () => this.tell((view) => view.refresh());
    for (const [name, listener] of Object.entries(this.listeners)) model.on(name, listener);
    ["picture", "preview", "after"].forEach((name) => this.listeners[`change:${name}`]());
  }

  close() {
    for (const [name, listener] of Object.entries(this.listeners)) this.model.off(name, listener);
    for (const slot of [...Object.values(this.slots), ...[...this.pictures.values()].map(({ slot }) => slot)])
      slot.close();
  }

  tell = (what) => this.views.forEach(what);
  say = (text) => this.tell((view) => view.say(text));

  put(values) {
    for (const [name, value] of Object.entries(values)) this.model.set(name, value);
    this.model.save_changes();
  }

  /** The picture {width, height, slot} that a sketch is drawn on, or the newest one, or null. */
  picture(sketch) {
    return this.pictures.get(sketch.picture) ?? this.pictures.get(this.model.get("picture").id) ?? null;
  }

  load(slot, data) {
    slot.load(data, () => this.tell((view) => view.refresh())).catch((error) => {
      this.say(`A picture could not be shown: ${error.message}`);
    });
  }

  loadPicture() {
    const { id, width, height, data } = this.model.get("picture");
    if (id === undefined) return;
    const slot = this.pictures.get(id)?.slot ?? new Slot();
    this.pictures.set(id, { width, height, slot });
    this.load(slot, data);
    this.tell((view) => view.refresh());
  }

  loadPreview() {
    const { data, flow } = this.model.get("preview");
    this.load(this.slots.preview, data);
    this.load(this.slots.flow, flow);
  }

  /** Carry out an action of `reduce`, tell Python, and end what is live; false if it changed nothing. */
  commit(action) {
    const history = reduce(this.history, action);
    const changed = history !== this.history;
    this.history = history;
    this.put(changed ? { sketch: history.present, live: {} } : { live: {} });
    if (changed) this.say(describe(action, history.present));
    this.tell((view) => view.refresh());
    return changed;
  }

  /** Python has set the sketch: unless it is ours that came back, it takes the place of ours, and can be undone. */
  follow() {
    const action = { type: "replace", sketch: this.model.get("sketch") };
    const history = reduce(this.history, action);
    if (history === this.history) return;
    this.history = history;
    this.tell((view) => view.finish(false)); // what was under way has lost its ground
    this.tell((view) => view.refresh());
    this.say(describe(action, history.present));
  }

  receive({ type, name, mime, text }, buffers) {
    if (type === "download") {
      const link = document.createElement("a");
      Object.assign(link, { href: URL.createObjectURL(new Blob([buffers[0]], { type: mime })), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000); // a click starts reading later
      this.say(`Downloaded ${name}`);
    }
    if (type === "copy")
      Promise.resolve(navigator.clipboard?.writeText(text) ?? Promise.reject(new Error("no clipboard here")))
        .then(() => this.say("Copied"), (error) => this.say(`The browser refused to copy: ${error.message}`));
  }
}

// ---- actions: what buttons and keys do; `keys` as `keyName` writes them, the first one is shown

const icon = (shapes) => `<svg viewBox="0 0 20 20" aria-hidden="true">${shapes}</svg>`;
const lines = (path) => icon(`<path d="${path}"/>`);
const LENS = "M12.6 12.6 17 17M14.5 8.75a5.75 5.75 0 1 1-11.5 0 5.75 5.75 0 0 1 11.5 0Z";
const ROUND = "M17 10a7 7 0 1 1-14 0 7 7 0 0 1 14 0Z";
const BACK = "M7 3.5 3.5 7 7 10.5M3.5 7H12a4.75 4.75 0 0 1 0 9.5H8";
const FORTH = "M13 3.5 16.5 7 13 10.5M16.5 7H8a4.75 4.75 0 0 0 0 9.5h4";
const DRAG = '<circle cx="5" cy="15" r="2.5"/><path d="m7 13 5-5"/><circle class="full" cx="14.5" cy="5.5" r="3"/>';
const BOXED = 'x="3.5" y="3.5" width="13" height="13" rx="2"';
const BIN = "M3.5 5.5h13M8 5.5v-2h4v2M5.5 5.5l.8 11h7.4l.8-11M8.5 8.5v5M11.5 8.5v5";

const tool = (name, label, key, shapes) => ({
  label, keys: [key], icon: shapes, pressed: (view) => view.get("tool") === name, run: (view) => view.choose(name),
});
const shows = (trait, name, label, keys, face) => ({
  label, keys, ...face, pressed: (view) => view.get(trait) === name,
  run: (view) => {
    view.put({ [trait]: name });
    view.say(face.hint ?? label);
  },
});
const edit = (label, keys, shapes, action, enabled = ({ picture }) => picture !== null) => ({
  label, keys, icon: shapes, enabled, run: (view) => view.shared.commit(action(view)),
});
const mask = (op) => (view) => ({ type: "mask", op: op(view) });

const ACTIONS = {
  drag: tool("drag", "Draw drags", "d", icon(DRAG)),
  brush: tool("brush", "Brush what may change", "b", lines("M17 3 9.5 10.5M8 10c-2.3 0-3.2 1.5-3.4 3.4-.1 1.2-.7" +
    " 2.2-1.8 2.6 3.9 1.2 8 .2 8-3.1C10.8 11.2 9.6 10 8 10Z")),
  erase: tool("erase", "Erase: what stays as it is", "e", lines(
    "M11.5 3.5 16.5 8.5 9.5 15.5H6L3 12.5Zm-4.3 4.3 5 5M5.5 15.5H17")),
  pan: tool("pan", "Move the picture", "h", lines(
    "M10 2.5v15M2.5 10h15M8 4.5l2-2 2 2M8 15.5l2 2 2-2M4.5 8l-2 2 2 2M15.5 8l2 2-2 2")),
  thinner: { label: "Smaller brush", keys: [","], run: (view) => view.resizeBrush(1 / 1.15) },
  thicker: { label: "Larger brush", keys: ["."], run: (view) => view.resizeBrush(1.15) },
  fill: edit("Fill the mask: everything may change (with the eraser: nothing)", ["f"],
    icon(`<rect class="full" ${BOXED}/>`),
    mask((view) => ({ op: "fill", value: view.get("tool") === "erase" ? 0 : 1 }))),
  invert: edit("Invert the mask", ["i"],
    icon('<circle cx="10" cy="10" r="6.75"/><path class="full" d="M10 3.25a6.75 6.75 0 0 1 0 13.5Z"/>'),
    mask(() => ({ op: "invert" }))),
  clearMask: edit("Remove the mask", ["m"],
    icon(`<rect ${BOXED} stroke-dasharray="2.5 2.2"/><path d="m7.5 7.5 5 5m0-5-5 5"/>`),
    () => ({ type: "clear", what: "mask" }), ({ sketch }) => sketch.mask.length > 0),
  remove: edit("Delete the selected drag", ["Delete", "Backspace"], lines(BIN),
    ({ selection }) => ({ type: "remove", index: selection?.index }), ({ selection }) => selection !== null),
  clearDrags: edit("Delete all drags", ["Shift+Delete", "Shift+Backspace"],
    icon(`${DRAG}<path d="m2.5 3.5 15 13"/>`),
    () => ({ type: "clear", what: "drags" }), ({ sketch }) => sketch.drags.length > 0),
  undo: edit("Undo", ["Ctrl+z"], lines(BACK), () => ({ type: "undo" }),
    ({ shared }) => shared.history.past.length > 0),
  redo: edit("Redo", ["Ctrl+Shift+z", "Ctrl+y"], lines(FORTH), () => ({ type: "redo" }),
    ({ shared }) => shared.history.future.length > 0),
  zoomOut: { label: "Zoom out", keys: ["-"], icon: lines(`${LENS}M6.5 8.75h4.5`),
    run: (view) => view.zoom(1 / 1.25) },
  zoomIn: { label: "Zoom in", keys: ["+", "="], icon: lines(`${LENS}M6.5 8.75h4.5m-2.25-2.25v4.5`),
    run: (view) => view.zoom(1.25) },
  fit: { label: "Fit the picture", keys: ["0"], icon: lines("M3 7V3h4M13 3h4v4M17 13v4h-4M7 17H3v-4"),
    run: (view) => view.zoom(0) },
  picture: shows("view", "picture", "Picture", ["1"], { text: "Picture", hint: "The picture as it is" }),
  preview: shows("view", "preview", "Preview", ["2"], { text: "Preview", hint: "The picture, warped by the drags" }),
  compare: shows("view", "compare", "Compare", ["3"], { text: "Compare", hint: "The picture and the result" }),
  flowNone: shows("flow_view", "none", "No flow", [], { icon: lines(`${ROUND}M5.2 5.2l9.6 9.6`) }),
  flowColour: shows("flow_view", "colour", "Flow as colour", [], { icon: icon(`<path d="${ROUND}"/>
    <path class="full" opacity=".35" d="M10 10V3a7 7 0 0 1 6 10.5Z"/>
    <path class="full" opacity=".8" d="m10 10 6 3.5a7 7 0 0 1-12 0Z"/>`) }),
  flowArrows: shows("flow_view", "arrows", "Flow as arrows", [],
    { icon: lines("M3 15 8 10M5 10h3v3M9.5 8l4.5-4.5M11 3.5h3v3M11 17l5-5M13 12h3v3") }),
  nextFlow: { label: "Next way to show the flow", keys: ["v"], run: (view) => view.nextFlow() },
  add: { label: "New drag in the middle", keys: ["n"], run: (view) => view.addInTheMiddle() },
  next: { label: "Select the next drag", keys: ["]"], run: (view) => view.selectNext(1) },
  previous: { label: "Select the previous drag", keys: ["["], run: (view) => view.selectNext(-1) },
  otherEnd: { label: "Select the drag's other end", keys: ["x"], run: (view) => view.selectOtherEnd() },
  edit: { label: "Edit", keys: ["Enter"], run: (view) => view.send("edit") },
  cancel: { label: "Cancel", keys: ["Escape"], run: (view) => view.send("cancel") },
  help: { label: "Keys", keys: ["?"], icon: lines(`${ROUND}M7.7 8a2.3 2.3 0 1 1 3.4 2c-.8.5-1.1.9-1.1 1.8m0 2.4v.1`),
    pressed: (view) => !view.help.hidden, run: ({ help }) => (help.hidden = !help.hidden) },
};
const DRAWING = ["drag brush erase pan", "size fill invert clearMask", "remove clearDrags", "undo redo"];
const VIEWING = ["picture preview compare", "flowNone flowColour flowArrows", "zoomOut percent zoomIn fit", "help"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const MORE_KEYS = [["Arrows", "Move the selected end by 1 px (Shift: 10)"],
  ["Arrows", "Or the brush (Shift: paint), or the picture"], ["Space+pull", "Move the picture"],
  ["Shift+press", "A new drag, even on another one's end"], ["Ctrl+wheel", "Zoom"]];

/** A key with its modifiers: "z", "Ctrl+Shift+z", "Shift+Delete"; Shift is in the character, Cmd is Ctrl. */
export function keyName(event) {
  const written = event.getModifierState?.("AltGraph") ?? false; // AltGr only writes the character
  const control = (event.ctrlKey || event.metaKey) && !written;
  const single = event.key.length === 1;
  const held = { Ctrl: control, Alt: event.altKey && !written, Shift: event.shiftKey && (!single || control) };
  const parts = Object.keys(held).filter((name) => held[name]);
  return [...parts, single ? event.key.toLowerCase() : event.key].join("+");
}

const KEYS = {}; // the action of each key
for (const [name, { keys }] of Object.entries(ACTIONS)) keys.forEach((key) => (KEYS[key] = name));

// ---- the view

const HINTS = {
  drag: "Press on the picture and pull to where it should go; press without pulling to hold a point.",
  brush: "Paint what may change; the rest stays as it is.",
  erase: "Paint over what must stay as it is.",
  pan: "Pull to move the picture; Ctrl+wheel or two fingers zoom.",
};
const [PULL, REACH, MIDDLE_BUTTON] = [3, { touch: 22, pen: 16, mouse: 12 }, 1]; // CSS pixels

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

class View {
  constructor(model, el, shared) {
    Object.assign(this, { model, shared, selection: null, hover: null, gesture: null, space: false, frame: 0 });
    Object.assign(this, { viewport: null, box: { width: 0, height: 0 }, shownPicture: null, ringUntil: 0 });
    this.pointers = new Map();
    this.closing = new AbortController();
    this.maskLayer = new MaskLayer((error) => {
      if (error) this.say(`The mask could not be shown: ${error.message}`);
      this.invalidate();
    });
    this.build(el);
    this.listen();
    shared.views.add(this);
    this.say(HINTS[this.get("tool")]);
    this.refresh();
  }

  close() {
    this.finish(false);
    this.shared.views.delete(this);
    this.closing.abort();
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.ringTimer);
    this.root.remove();
  }

  get = (name) => this.model.get(name);
  put = (values) => this.shared.put(values);
  send = (name) => this.model.send({ type: "command", name });
  say = (text) => setText(this.status, text);

  /** What is drawn: the committed sketch, with what the running gesture would make of it. */
  get sketch() {
    const { present } = this.shared.history;
    return this.gesture?.action ? apply(present, this.gesture.action) : present;
  }

  get picture() {
    return this.shared.picture(this.shared.history.present);
  }

  // -- building

  build(el) {
    this.canvas = element("canvas", { class: "dsc-canvas" });
    this.divider = element("div", { class: "dsc-divider", role: "slider", tabindex: 0, "aria-valuemin": 0,
      "aria-valuemax": 100, "aria-label": "Divider between the picture and the result" });
    this.badges = [element("span", { class: "dsc-badge" }), element("span", { class: "dsc-badge dsc-right" })];
    this.note = element("div", { class: "dsc-note" });
    this.help = element("dl", { class: "dsc-help", hidden: "" });
    for (const [keys, label] of [...Object.values(ACTIONS).map(({ keys, label }) => [keys[0], label]), ...MORE_KEYS])
      if (keys) this.help.append(element("div", {}, element("dt", {}, shownKey(keys)), element("dd", {}, label)));
    const onStage = [this.canvas, this.divider, ...this.badges, this.note, this.help];
    this.stage = element("div", { class: "dsc-stage" }, ...onStage);
    this.status = element("div", { class: "dsc-status", role: "status", "aria-live": "polite" });
    this.percent = element("span", { class: "dsc-percent", title: "Pixels of the screen per pixel of the picture" });
    this.sizeSlider = this.buildSize();
    this.buttons = {};
    this.root = element("div", { class: "dsc-root", tabindex: 0, role: "application",
      "aria-label": "Drawing canvas: drags and mask. Press n for a new drag, ? for all keys." },
      this.buildToolbar("Draw", DRAWING), this.stage, this.buildToolbar("View", VIEWING), this.status);
    // JupyterLab asks the element with the focus whether keys are its own: two d's would else delete the cell
    for (const one of [this.root, ...this.root.querySelectorAll("button, input, [tabindex]")])
      one.dataset.lmSuppressShortcuts = "true";
    el.append(this.root);
  }

  buildToolbar(label, groups) {
    const bar = element("div", { class: "dsc-toolbar", role: "toolbar", "aria-label": label });
    const special = { size: this.sizeSlider, percent: this.percent };
    for (const names of groups.map((group) => group.split(" "))) {
      const joined = ACTIONS[names[0]]?.text ? "dsc-group dsc-joined" : "dsc-group";
      bar.append(element("div", { class: joined }, ...names.map((name) => special[name] ?? this.buildButton(name))));
    }
    const stops = [...bar.querySelectorAll("button")];
    stops.forEach((button, k) => (button.tabIndex = k ? -1 : 0)); // one stop for Tab; arrows go on inside
    this.on(bar, "keydown", (event) => {
      const at = stops.indexOf(event.target);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: stops.length - 1 }[event.key];
      if (at < 0 || to === undefined || keyName(event) !== event.key) return;
      const next = stops.at(to % stops.length);
      stops.forEach((button) => (button.tabIndex = button === next ? 0 : -1));
      next.focus();
      event.preventDefault();
      event.stopPropagation();
    });
    return bar;
  }

  buildButton(name) {
    const { label, keys, icon, text } = ACTIONS[name];
    const title = keys.length ? `${label} (${shownKey(keys[0])})` : label;
    const button = element("button", { type: "button", "aria-label": label, title, "data-action": name });
    if (icon) button.innerHTML = icon;
    else button.textContent = text;
    this.on(button, "click", (event) => {
      this.run(name);
      if (event.detail) this.root.focus({ preventScroll: true }); // a click, not a key: the keys draw again
    });
    return (this.buttons[name] = button);
  }

  buildSize() {
    this.size = element("input", { type: "range", min: 0, max: 100, step: 1, "aria-label": "Brush size",
      title: "Brush size (, and .)" });
    this.sizeText = element("output", {});
    this.on(this.size, "input", () => this.setRadius(this.largest ** (this.size.value / 100)));
    return element("label", { class: "dsc-size" }, element("span", {}, "Size"), this.size, this.sizeText);
  }

  // -- state to screen

  /** Bring everything that depends on the state up to date. */
  refresh() {
    const picture = this.picture;
    const { drags } = this.sketch;
    if (this.selection && !(this.selection.index in drags)) this.selection = null;
    const size = picture && `${picture.width} / ${picture.height}`;
    if (size !== this.shownPicture) {
      this.shownPicture = size;
      this.finish(false); // it was about another picture
      this.viewport = picture && this.box.width ? fit(picture, this.box) : null;
      this.stage.style.aspectRatio = size ?? "3 / 2";
    }
    for (const [name, button] of Object.entries(this.buttons)) {
      const { enabled, pressed } = ACTIONS[name];
      if (enabled) button.setAttribute("aria-disabled", !enabled(this));
      if (pressed) button.setAttribute("aria-pressed", pressed(this));
    }
    const radius = this.get("radius");
    this.size.value = (100 * Math.log(Math.max(radius, 1))) / Math.log(this.largest);
    this.size.setAttribute("aria-valuetext", `${Math.round(radius)} pixels`);
    this.sizeText.textContent = `${Math.round(radius)} px`;
    this.arrange();
    this.invalidate();
  }

  /** The words on the stage, and the divider. */
  arrange() {
    const { picture, shared: { slots } } = this;
    const comparing = this.get("view") === "compare";
    const both = comparing && picture && slots.after.bitmap;
    const notes = [!picture && "Open a picture to begin.", comparing && picture && !both &&
      "There is no result yet to compare the picture with."];
    setText(this.note, notes.find(Boolean) || "");
    setText(this.badges[0], both ? "Picture" : this.base && this.base === slots.preview.bitmap ? "Preview" : "");
    setText(this.badges[1], both ? this.get("after").label : "");
    if (!both && document.activeElement === this.divider) this.root.focus({ preventScroll: true });
    this.divider.hidden = !both;
    if (!both || !this.viewport) return;
    const share = Math.round(100 * this.get("split"));
    this.divider.style.left = `${this.dividerX()}px`;
    this.divider.setAttribute("aria-valuenow", share);
    this.divider.setAttribute("aria-valuetext", `${share} percent picture`);
  }

  get largest() {
    return Math.max(2, (this.picture ? Math.max(this.picture.width, this.picture.height) : 512) / 2);
  }

  /** The picture that is shown: the preview where it is asked for, there is one, and a drag moves something. */
  get base() {
    const { preview } = this.shared.slots;
    const moves = this.sketch.drags.some(([handle, target]) => !same(handle, target));
    const shown = this.get("view") === "preview" && moves && this.previewFits;
    return (shown && preview.bitmap) || this.picture?.slot.bitmap || null;
  }

  /** Whether the preview is of the picture that is drawn on; one that comes late may be of another. */
  get previewFits() {
    return this.get("preview").picture === this.sketch.picture;
  }

  /** Where the divider is on the screen: within what is seen of the picture. */
  dividerX() {
    const [x] = imageToScreen(this.viewport, [this.get("split") * this.picture.width - 0.5, 0]);
    return clamp(x, Math.max(0, this.viewport.x), Math.min(this.box.width, this.box.width - this.viewport.x));
  }

  invalidate() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.gesture?.changed) {
        this.gesture.changed = false;
        this.put({ live: this.sketch });
      }
      this.draw();
    });
  }

  draw() {
    const { box, canvas, picture } = this;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, box.width, box.height);
    const { viewport, sketch } = this;
    if (!picture || !viewport) return;
    setText(this.percent, `${Math.round(viewport.scale * 100)} %`);
    this.arrange();
    context.imageSmoothingEnabled = viewport.scale < 6; // beyond, single pixels are looked for
    context.imageSmoothingQuality = viewport.scale < 1 ? "medium" : "low";
    const cover = (bitmap) => bitmap && context.drawImage(bitmap, viewport.x, viewport.y,
      picture.width * viewport.scale, picture.height * viewport.scale);
    cover(this.base);
    if (this.get("view") === "compare") return this.drawAfter(context, cover);

    const flow = this.get("flow_view");
    if (flow === "colour" && this.previewFits && this.shared.slots.flow.bitmap) {
      context.globalAlpha = 0.6;
      cover(this.shared.slots.flow.bitmap);
      context.globalAlpha = 1;
    }
    if (sketch.mask.length) this.drawMask(context, cover);
    if (flow === "arrows" && this.previewFits) drawFlowArrows(context, this.get("preview").arrows ?? [], viewport);
    drawDrags(context, sketch.drags, viewport, this.selection, this.gesture ? null : this.hover?.hit);
    this.drawBrush(context);
    this.stage.style.cursor = this.cursor();
  }

  drawMask(context, cover) {
    const { maskLayer, viewport, picture, sketch } = this;
    maskLayer.update(sketch.mask, picture);
    cover(maskLayer.canvas);
    const scale = (viewport.scale * picture.width) / maskLayer.canvas.width;
    context.save();
    context.translate(viewport.x, viewport.y);
    context.scale(scale, scale);
    outlined(context, maskLayer.path, { width: 1.25 / scale, dark: 0.75 / scale, colour: "rgb(255 255 255 / 0.85)" });
    context.restore();
  }

  drawAfter(context, cover) {
    const { bitmap } = this.shared.slots.after;
    this.stage.style.cursor = bitmap ? "ew-resize" : "default";
    if (!bitmap) return;
    const x = this.dividerX();
    context.save();
    context.beginPath();
    context.rect(x, 0, this.box.width - x, this.box.height);
    context.clip();
    cover(bitmap);
    context.restore();
  }

  drawBrush(context) {
    if (!["brush", "erase"].includes(this.get("tool")) || this.panning) return;
    const at = this.hover?.at ?? (performance.now() < this.ringUntil && this.centre);
    const radius = Math.max(1, this.get("radius") * this.viewport.scale);
    if (at) outlined(context, circles([at], radius), { width: 1.5 });
  }

  get centre() {
    return [this.box.width / 2, this.box.height / 2];
  }

  get panning() {
    return this.space || this.get("tool") === "pan" || Boolean(this.gesture?.pans);
  }

  cursor() {
    if (this.panning) return this.gesture ? "grabbing" : "grab";
    if (this.get("tool") !== "drag") return "none";
    return this.gesture?.action ? "grabbing" : this.hover?.hit ? "grab" : "crosshair";
  }

  // -- actions

  run(name) {
    const { enabled, run } = ACTIONS[name];
    if (this.gesture) this.finish(this.gesture.keys !== undefined); // what the keys have moved stays
    if (enabled?.(this) ?? true) run(this);
    this.refresh();
  }

  choose(name) {
    this.put(this.get("view") === "compare" ? { tool: name, view: "preview" } : { tool: name });
    this.say(HINTS[name]);
  }

  setRadius(radius) {
    this.put({ radius: round(clamp(radius, 1, this.largest)) });
    this.ringUntil = performance.now() + 900; // seen in the middle while the pointer is elsewhere
    clearTimeout(this.ringTimer);
    this.ringTimer = setTimeout(() => this.invalidate(), 950);
  }

  resizeBrush(factor) {
    const radius = this.get("radius");
    this.setRadius(factor > 1 ? Math.max(radius + 1, radius * factor) : Math.min(radius - 1, radius * factor));
  }

  /** Zoom about the middle; by 0: show the whole picture. */
  zoom(factor) {
    if (!this.viewport) return;
    const { picture, box } = this;
    this.viewport = factor ? zoomAt(this.viewport, factor, this.centre, picture, box) : fit(picture, box);
    this.invalidate();
  }

  nextFlow() {
    const ways = ["flowNone", "flowColour", "flowArrows"];
    this.run(ways[(ways.findIndex((name) => ACTIONS[name].pressed(this)) + 1) % ways.length]);
  }

  select(selection) {
    this.selection = selection;
    this.refresh();
  }

  addInTheMiddle() {
    if (!this.viewport) return;
    this.choose("drag");
    const at = clampToImage(screenToImage(this.viewport, this.centre), this.picture);
    this.shared.commit({ type: "add", handle: at, target: at });
    this.select({ index: this.sketch.drags.length - 1, end: "target" });
  }

  selectNext(step) {
    const { drags } = this.sketch;
    if (!drags.length) return this.say("There are no drags");
    const from = this.selection?.index ?? (step > 0 ? -1 : 0);
    this.selectAndShow({ index: (from + step + drags.length) % drags.length, end: this.selection?.end ?? "target" });
  }

  selectOtherEnd() {
    if (!this.selection) return;
    this.selectAndShow({ ...this.selection, end: this.selection.end === "handle" ? "target" : "handle" });
  }

  selectAndShow({ index, end }) {
    this.select({ index, end });
    this.say(`${describeDrag(this.sketch.drags[index], index)}; its ${end} is selected`);
    this.reveal();
  }

  /** Shift the viewport so that the selected end is seen. */
  reveal() {
    const { box, viewport } = this;
    if (!viewport) return;
    const [x, y] = imageToScreen(viewport, this.endOf(this.selection));
    const into = (at, length) => clamp(at, 24, length - 24) - at;
    this.shift([into(x, box.width), into(y, box.height)]);
  }

  /** Move what is shown by so many pixels of the screen. */
  shift([x, y]) {
    const moved = { ...this.viewport, x: this.viewport.x + x, y: this.viewport.y + y };
    this.viewport = settle(moved, this.picture, this.box);
    this.invalidate();
  }

  endOf({ index, end }) {
    return this.sketch.drags[index][end === "handle" ? 0 : 1];
  }

  // -- gestures: {action?: what letting go commits, move(at, all), close?(at), pans?, keys?: those that are down}

  update(action) {
    Object.assign(this.gesture, { action, changed: true });
    this.invalidate();
  }

  /** End the running gesture; `keep`: with what it has done, else as if it had not been. */
  finish(keep) {
    const { gesture } = this;
    this.gesture = null;
    if (!gesture?.action) return this.invalidate();
    if (keep) return this.shared.commit(gesture.action);
    this.put({ live: {} });
    this.say("Cancelled");
    this.refresh();
  }

  begin(at, event) {
    if (this.get("view") === "compare" && !this.panning && event.button !== MIDDLE_BUTTON) return this.beginSplit(at);
    if (this.panning || event.button === MIDDLE_BUTTON) return this.beginPan(at);
    return this.get("tool") === "drag" ? this.beginDrag(at, event) : this.beginStroke(at);
  }

  beginPan(last) {
    const move = (at) => {
      this.shift([at[0] - last[0], at[1] - last[1]]);
      last = at;
    };
    return { pans: true, move };
  }

  beginPinch() {
    let before = [...this.pointers.values()];
    const move = () => {
      const after = [...this.pointers.values()];
      this.viewport = pinch(this.viewport, before, after, this.picture, this.box);
      before = after;
    };
    return { pans: true, move };
  }

  beginSplit(at) {
    if (!this.shared.slots.after.bitmap) return null;
    const move = ([x]) => {
      const [inside] = screenToImage(this.viewport, [x, 0]);
      this.put({ split: clamp(round((inside + 0.5) / this.picture.width), 0, 1) });
    };
    move(at);
    return { move };
  }

  beginDrag(at, { pointerType, shiftKey }) {
    const { drags } = this.sketch;
    const hit = shiftKey ? null : hitTest(drags, this.viewport, at, REACH[pointerType] ?? REACH.mouse);
    const pressed = screenToImage(this.viewport, at);
    if (!hit && !isInside(pressed, this.picture)) return this.select(null);
    this.selection = hit ?? { index: drags.length, end: "target" };
    const start = hit ? this.endOf(hit) : clampToImage(pressed, this.picture);
    const to = (end) => (hit ? { type: "move", ...hit, to: end } : { type: "add", handle: start, target: end });
    const held = imageToScreen(this.viewport, start); // an end that is not hit in its middle does not jump there
    let pulled = false;
    const move = ([x, y]) => {
      pulled ||= distance(at, [x, y]) > PULL;
      const end = screenToImage(this.viewport, [x + held[0] - at[0], y + held[1] - at[1]]);
      if (pulled) this.update(to(clampToImage(end, this.picture)));
    };
    return { action: to(start), changed: !hit, move };
  }

  beginStroke(at) {
    const radius = this.get("radius");
    const value = this.get("tool") === "brush" ? 1 : 0;
    const inPicture = (where) => screenToImage(this.viewport, where).map(round);
    const stroke = (points) => ({ type: "mask", op: { op: "stroke", points, radius, value } });
    let points = [inPicture(at)];
    const move = (_, all) => {
      const longer = all.reduce((so, where) => lengthen(so, inPicture(where), radius), points);
      if (longer === points) return;
      points = longer;
      this.update(stroke(points));
    };
    const close = (where) => {
      const last = inPicture(where); // a stroke reaches to where it was let go
      if (distance(points.at(-1), last) > 0.5) this.update(stroke([...points, last]));
    };
    return { action: stroke(points), changed: true, move, close };
  }

  /** Arrow keys move what the tool moves; from the first key down to the last key up is one gesture. */
  arrow(event) {
    const tool = this.get("tool");
    if (!this.viewport || (this.get("view") === "compare" && tool !== "pan")) return false;
    const direction = ARROWS[event.key];
    if (tool === "pan") this.shift(direction.map((one) => -one * (event.shiftKey ? 200 : 40)));
    else if (tool !== "drag") this.brushOn(event, direction);
    else if (this.selection) this.nudge(event, direction);
    else return false;
    return true;
  }

  nudge({ key, shiftKey }, direction) {
    this.gesture ??= { keys: new Set() };
    this.gesture.keys.add(key);
    const to = this.endOf(this.selection).map((one, axis) => one + direction[axis] * (shiftKey ? 10 : 1));
    this.update({ type: "move", ...this.selection, to: clampToImage(to, this.picture) });
    this.reveal();
  }

  /** Move the brush by half its radius, with Shift painting, from where the pointer is or from the middle. */
  brushOn({ key, shiftKey }, direction) {
    const from = this.hover?.at ?? this.centre;
    const step = Math.max(2, (this.get("radius") * this.viewport.scale) / 2);
    const [x, y] = from.map((one, axis) => one + direction[axis] * step);
    const to = [clamp(x, 0, this.box.width), clamp(y, 0, this.box.height)];
    if (shiftKey) this.gesture ??= { ...this.beginStroke(from), keys: new Set() };
    this.gesture?.keys.add(key);
    this.gesture?.move(to, [to]);
    this.hover = { at: to, hit: null };
    this.invalidate();
  }

  // -- input

  listen() {
    this.on(this.stage, "pointerdown", (event) => this.onPointerDown(event));
    this.on(this.stage, "pointermove", (event) => this.onPointerMove(event));
    this.on(this.stage, "pointerup", (event) => this.onPointerUp(event, true));
    this.on(this.stage, "pointercancel", (event) => this.onPointerUp(event, false));
    this.on(this.stage, "pointerleave", () => this.point(null));
    this.on(this.stage, "mousedown", (event) => this.help.contains(event.target) || event.preventDefault());
    this.on(this.stage, "contextmenu", (event) => this.pointers.size && event.preventDefault()); // of a long touch
    this.on(this.stage, "wheel", (event) => this.onWheel(event), { passive: false });
    this.on(this.root, "keydown", (event) => this.onKeyDown(event));
    this.on(this.root, "keyup", (event) => this.onKeyUp(event));
    this.on(this.root, "focusout", () => this.releaseKeys());
    this.on(this.divider, "keydown", (event) => this.onDividerKey(event));
    this.observer = new ResizeObserver(([{ contentRect }]) => this.resize(contentRect));
    this.observer.observe(this.stage);
  }

  on(target, type, listener, options = {}) {
    target.addEventListener(type, listener, { signal: this.closing.signal, ...options });
  }

  /** The stage has another size: what showed the whole picture still does, what was zoomed stays so. */
  resize({ width, height }) {
    if (!width || !height) return; // scrolled away, or in a hidden tab
    const { picture, viewport } = this;
    const whole = !viewport || viewport.scale <= fit(picture, this.box).scale;
    this.box = { width, height };
    if (picture) this.viewport = whole ? fit(picture, this.box) : zoomAt(viewport, 1, [0, 0], picture, this.box);
    this.invalidate();
  }

  at(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  /** Where the pointer hovers, and over which end. */
  point(at, pointerType) {
    const aims = at && this.viewport && this.get("tool") === "drag" && !this.gesture;
    const reach = REACH[pointerType] ?? REACH.mouse;
    this.hover = at && { at, hit: aims ? hitTest(this.sketch.drags, this.viewport, at, reach) : null };
    this.invalidate();
  }

  onPointerDown(event) {
    if (!this.viewport || !this.picture || event.button > MIDDLE_BUTTON || this.help.contains(event.target)) return;
    const onDivider = event.target === this.divider;
    (onDivider ? this.divider : this.root).focus({ preventScroll: true });
    if (this.gesture) this.finish(this.gesture.keys !== undefined); // a second finger takes the first one's drag back
    this.pointers.set(event.pointerId, this.at(event));
    this.stage.setPointerCapture(event.pointerId);
    if (this.pointers.size === 1) this.gesture = this.begin(this.at(event), event) ?? null;
    if (this.pointers.size === 2) this.gesture = this.beginPinch();
    this.point(this.at(event), event.pointerType);
  }

  onPointerMove(event) {
    const at = this.at(event);
    this.point(at, event.pointerType);
    if (!this.pointers.has(event.pointerId)) return;
    this.pointers.set(event.pointerId, at);
    const all = event.getCoalescedEvents?.() ?? [];
    this.gesture?.move?.(at, all.length ? all.map((one) => this.at(one)) : [at]);
  }

  onPointerUp(event, keep) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (keep) this.gesture?.close?.(this.at(event));
    this.finish(keep);
    this.point(event.pointerType === "mouse" ? this.at(event) : null, event.pointerType);
  }

  onWheel(event) {
    if (!(event.ctrlKey || event.metaKey) || !this.viewport) return; // the notebook scrolls
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    const factor = Math.exp(-clamp(pixels, -60, 60) / 250);
    this.viewport = zoomAt(this.viewport, factor, this.at(event), this.picture, this.box);
    this.invalidate();
  }

  onKeyDown(event) {
    const name = keyName(event);
    const { tagName } = event.target;
    if (event.defaultPrevented || event.isComposing) return;
    if (tagName === "INPUT" && !name.startsWith("Ctrl+")) return; // the slider's own keys
    if (tagName === "BUTTON" && ["Enter", " "].includes(name)) return; // the button's own keys
    if (!this.press(name, event)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Carry out a key; false if it is none of ours. */
  press(name, event) {
    const ours = name === " " || name in KEYS;
    if (this.gesture && !this.gesture.keys && name !== "Escape") return ours; // the pointer is down: it leads
    if (this.gesture && name === "Escape") {
      this.finish(false);
      return true;
    }
    if (event.key in ARROWS && [event.key, `Shift+${event.key}`].includes(name)) return this.arrow(event);
    if (name === " ") this.space = true;
    if (name === "Escape" && !this.help.hidden) name = "?";
    if (name in KEYS && !(event.repeat && name === "Enter")) this.run(KEYS[name]);
    this.invalidate();
    return ours;
  }

  onKeyUp(event) {
    if (event.key === " ") this.space = false;
    if (this.gesture?.keys?.delete(event.key) && !this.gesture.keys.size) this.finish(true);
    this.invalidate();
  }

  /** The focus goes: keys that are down will not be seen to come up. */
  releaseKeys() {
    this.space = false;
    if (this.gesture?.keys) this.finish(true);
    this.invalidate();
  }

  onDividerKey(event) {
    const split = this.get("split");
    const step = event.shiftKey ? 0.1 : 0.01;
    const to = { ArrowLeft: split - step, ArrowRight: split + step, Home: 0, End: 1 }[event.key];
    if (to === undefined) return;
    this.put({ split: clamp(round(to), 0, 1) });
    event.preventDefault();
    event.stopPropagation();
  }
}

const shownKey = (key) => key.replace(/(^|\+)([a-z])$/, (_, before, letter) => before + letter.toUpperCase());

// ---- anywidget: called once for each widget, so that all views of one share what is made here

export default () => {
  let shared = null;
  return {
    initialize({ model }) {
      shared = new Shared(model);
      return () => shared.close();
    },
    render({ model, el }) {
      const view = new View(model, el, shared);
      return () => view.close();
    },
  };
};
