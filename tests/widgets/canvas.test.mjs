// Run by test_canvas.py, or by hand: node --test tests/widgets/canvas.test.mjs
import assert from "node:assert/strict";
import { test } from "node:test";
import canvas from "./canvas-module.mjs";

const {
  apply, border, clampToImage, describe, emptyHistory, emptySketch, fit, hitTest, imageToScreen, isInside, keyName,
  lengthen, pinch, progress, rasterise, reduce, same, screenToImage, settle, zoomAt,
} = canvas;

const PICTURE = { width: 300, height: 200 };
const BOX = { width: 640, height: 480 };
const close = (a, b, tolerance = 1e-9) =>
  a.forEach((value, k) => assert.ok(Math.abs(value - b[k]) < tolerance, `${a} is not ${b}`));

/** Numbers in [0, 1) that are the same each time. */
function randoms(seed) {
  let state = seed;
  return () => (state = (state * 48271) % 2147483647) / 2147483647;
}

// geometry

test("from the picture to the screen and back", () => {
  const random = randoms(1);
  for (let k = 0; k < 200; k++) {
    const viewport = { scale: 0.1 + 20 * random(), x: 900 * random() - 450, y: 900 * random() - 450 };
    const point = [300 * random(), 200 * random()];
    close(screenToImage(viewport, imageToScreen(viewport, point)), point, 1e-8);
  }
});

test("the whole picture is fitted, in the middle: its corners are half a pixel beyond the centres of pixels", () => {
  const viewport = fit(PICTURE, BOX);
  close(imageToScreen(viewport, [-0.5, -0.5]), [0, (480 - (200 * 640) / 300) / 2]);
  close(imageToScreen(viewport, [299.5, 199.5]), [640, (480 + (200 * 640) / 300) / 2]);
  assert.deepEqual(settle(viewport, PICTURE, BOX), viewport);
});

test("zooming in keeps what is under the pointer, zooming out ends at the whole picture", () => {
  let viewport = fit(PICTURE, BOX);
  for (const factor of [1.3, 2, 1.1]) {
    const before = screenToImage(viewport, [320, 250]);
    viewport = zoomAt(viewport, factor, [320, 250], PICTURE, BOX);
    close(screenToImage(viewport, [320, 250]), before, 1e-8);
  }
  assert.deepEqual(zoomAt(viewport, 1e-9, [5, 5], PICTURE, BOX), fit(PICTURE, BOX));
  assert.equal(zoomAt(viewport, 1e9, [5, 5], PICTURE, BOX).scale, 32);
});

test("however it is zoomed and moved, the picture fills the box or lies in its middle", () => {
  const random = randoms(2);
  let viewport = fit(PICTURE, BOX);
  for (let k = 0; k < 300; k++) {
    viewport = zoomAt(viewport, 0.5 + 1.5 * random(), [640 * random(), 480 * random()], PICTURE, BOX);
    viewport = settle({ ...viewport, x: viewport.x + 400 * random() - 200 }, PICTURE, BOX);
    for (const [offset, size, room] of [[viewport.x, 300, 640], [viewport.y, 200, 480]]) {
      const rest = room - size * viewport.scale;
      assert.ok(rest >= 0 ? Math.abs(offset - rest / 2) < 1e-9 : offset <= 0 && offset >= rest);
    }
  }
});

test("two fingers move and zoom: what was between them stays between them", () => {
  const viewport = zoomAt(fit(PICTURE, BOX), 3, [320, 240], PICTURE, BOX);
  const [before, after] = [[[300, 240], [340, 240]], [[270, 250], [350, 250]]];
  const pinched = pinch(viewport, before, after, PICTURE, BOX);
  assert.ok(Math.abs(pinched.scale - 2 * viewport.scale) < 1e-9);
  close(screenToImage(pinched, [310, 250]), screenToImage(viewport, [320, 240]), 1e-8);
});

test("points are clamped to the picture, to two decimals, without a negative zero", () => {
  assert.deepEqual(clampToImage([-9, 1e9], PICTURE), [-0.5, 199.5]);
  assert.deepEqual(clampToImage([1.23456, -0.001], PICTURE), [1.23, 0]);
  assert.ok(Object.is(clampToImage([-0.001, 0], PICTURE)[0], 0));
  assert.ok(isInside([-0.5, 199.5], PICTURE) && !isInside([-0.51, 3], PICTURE));
});

test("an end is hit within reach on the screen, at every zoom; the nearest one wins", () => {
  const drags = [[[10, 10], [40, 10]], [[60, 10], [60, 50]]];
  for (const scale of [0.5, 1, 7]) {
    const viewport = { scale, x: 3, y: 5 };
    const [x, y] = imageToScreen(viewport, [60, 50]);
    assert.deepEqual(hitTest(drags, viewport, [x + 11.9, y], 12), { index: 1, end: "target" });
    assert.equal(hitTest(drags, viewport, [x + 12.1, y], 12), null);
  }
  const viewport = { scale: 1, x: 0, y: 0 };
  assert.deepEqual(hitTest(drags, viewport, [49, 10.5], 22), { index: 0, end: "target" });
  assert.deepEqual(hitTest(drags, viewport, [52, 10.5], 22), { index: 1, end: "handle" });
});

test("where several ends lie on each other, a target comes first, and the one drawn last", () => {
  const viewport = { scale: 2, x: 0, y: 0 };
  const at = imageToScreen(viewport, [5, 5]);
  const anchor = [[5, 5], [5, 5]];
  assert.deepEqual(hitTest([anchor], viewport, at, 12), { index: 0, end: "target" });
  assert.deepEqual(hitTest([anchor, anchor], viewport, at, 12), { index: 1, end: "target" });
  assert.deepEqual(hitTest([[[1, 1], [5, 5]], [[5, 5], [9, 9]]], viewport, at, 12), { index: 0, end: "target" });
});

// sketch

const ADD = { type: "add", handle: [1, 2], target: [3, 4] };
const STROKE = { op: "stroke", points: [[5, 5], [9, 7]], radius: 3, value: 1 };

test("what changes nothing gives the same history", () => {
  const one = reduce(emptyHistory(), ADD);
  for (const action of [
    { type: "redo" }, { type: "move", index: 0, end: "target", to: [3, 4] }, { type: "move", index: 1, end: "handle", to: [0, 0] },
    { type: "remove", index: 1 }, { type: "remove", index: -1 }, { type: "remove", index: null }, { type: "clear", what: "mask" },
    { type: "replace", sketch: structuredClone(one.present) },
  ])
    assert.equal(reduce(one, action), one);
  const empty = emptyHistory();
  assert.equal(reduce(empty, { type: "undo" }), empty);
  assert.throws(() => reduce(empty, { type: "paint" }), /paint/);
});

test("undo and redo give back the very sketches, whatever was done", () => {
  const random = randoms(3);
  const pick = (...choices) => choices[Math.floor(random() * choices.length)];
  let history = emptyHistory();
  const states = [history.present];
  for (let k = 0; k < 200; k++) {
    const [index, to] = [Math.floor(4 * random()), [Math.floor(9 * random()), Math.floor(9 * random())]];
    const next = reduce(history, pick(
      ADD, { type: "move", index, end: pick("handle", "target"), to }, { type: "remove", index },
      { type: "mask", op: pick(STROKE, { op: "invert" }, { op: "fill", value: 0 }) },
      { type: "clear", what: pick("drags", "mask") }, { type: "replace", sketch: { ...emptySketch(), picture: index } }));
    if (next !== history) states.push(next.present);
    history = next;
  }
  for (let k = states.length - 1; k > 0; k--) {
    assert.equal(history.present, states[k]);
    history = reduce(history, { type: "undo" });
  }
  for (const state of states) {
    assert.equal(history.present, state);
    history = reduce(history, { type: "redo" });
  }
});

test("an action leaves the sketch before it as it was, and shares what it did not touch", () => {
  const before = apply(apply(emptySketch(), ADD), ADD);
  const copy = structuredClone(before);
  const after = apply(before, { type: "move", index: 1, end: "handle", to: [8, 8] });
  assert.deepEqual(before, copy);
  assert.deepEqual(after.drags, [[[1, 2], [3, 4]], [[8, 8], [3, 4]]]);
  assert.equal(after.drags[0], before.drags[0]);
  assert.equal(after.mask, before.mask);
});

test("a change after an undo leaves nothing to redo", () => {
  const undone = reduce(reduce(emptyHistory(), ADD), { type: "undo" });
  assert.equal(undone.future.length, 1);
  assert.equal(reduce(undone, { type: "mask", op: STROKE }).future.length, 0);
});

test("equality is by value", () => {
  assert.ok(same({ a: [1, { b: 2 }], c: null }, { c: null, a: [1, { b: 2 }] }));
  for (const [a, b] of [[[1], [1, 2]], [{ a: 1 }, { b: 1 }], [{ a: 1 }, {}], [[], {}], [null, {}], ["1", 1], [{ a: undefined }, { b: 1 }]])
    assert.ok(!same(a, b));
});

test("every action says what it did", () => {
  const sketch = apply(emptySketch(), { type: "add", handle: [120, 90], target: [140.26, 90] });
  assert.equal(describe(ADD, sketch), "Drag 1: from 120, 90 to 140.3, 90");
  assert.equal(describe(ADD, apply(sketch, { ...ADD, target: [1, 2] })), "Drag 2: anchor at 1, 2");
  assert.equal(describe({ type: "remove", index: 1 }, sketch), "Drag 2 removed, 1 drag left");
  assert.equal(describe({ type: "undo" }, emptySketch()), "Undone: 0 drags, no mask");
});

// raster

const GRID = { width: 12, height: 9 };
const ones = (raster) => raster.reduce((sum, pixel) => sum + pixel, 0);

test("a stroke sets the pixels at most its radius away", () => {
  const raster = rasterise([{ ...STROKE, points: [[3, 4], [7, 4]], radius: 2 }], GRID);
  for (let y = 0; y < 9; y++)
    for (let x = 0; x < 12; x++)
      assert.equal(raster[12 * y + x], Number(Math.hypot(x - Math.min(Math.max(x, 3), 7), y - 4) <= 2), `${x}, ${y}`);
});

test("a stroke of one point is a disc, one beyond the rim is cut", () => {
  assert.equal(ones(rasterise([{ ...STROKE, points: [[5, 4]], radius: 1 }], GRID)), 5);
  assert.equal(ones(rasterise([{ ...STROKE, points: [[-1, 4]], radius: 1 }], GRID)), 1);
  assert.equal(ones(rasterise([{ ...STROKE, points: [[-5, -5], [-5, 40]], radius: 2 }], GRID)), 0);
});

test("who paints first starts from nothing, who erases first from everything", () => {
  const disc = { ...STROKE, points: [[5, 4]], radius: 1 };
  assert.equal(rasterise([], GRID), null);
  assert.equal(ones(rasterise([{ ...disc, value: 0 }], GRID)), 108 - 5);
  assert.equal(ones(rasterise([{ op: "invert" }], GRID)), 0);
  assert.equal(ones(rasterise([disc, { op: "invert" }], GRID)), 108 - 5);
  assert.equal(ones(rasterise([disc, { op: "fill", value: 1 }, { ...disc, value: 0 }], GRID)), 108 - 5);
  const png = Uint8Array.from({ length: 108 }, (_, k) => k % 2);
  assert.deepEqual(rasterise([disc, { op: "image", png: "x" }], GRID, new Map([["x", png]])), png);
});

test("a growing stroke is painted on, anything else again", () => {
  const [invert, points] = [{ op: "invert" }, [[1, 1], [2, 2]]];
  const stroke = (...more) => ({ ...STROKE, points: [...points, ...more] });
  const [short, long] = [stroke(), stroke([3, 3])];
  assert.deepEqual(progress([], [short]), [0, 0]);
  assert.deepEqual(progress([invert], [invert, short]), [1, 0]);
  assert.deepEqual(progress([invert, short], [invert, long]), [1, 2]);
  assert.deepEqual(progress([invert, long], [invert, long, invert]), [2, 0]);
  assert.equal(progress([invert, long], [invert, short]), null);
  assert.equal(progress([invert, short], [invert]), null);
  assert.equal(progress([short], [{ ...long, radius: 9 }]), null);
  assert.equal(progress([short, invert], [long, invert]), null);
});

test("points of a stroke are a quarter of the radius apart", () => {
  const points = [[0, 0]];
  assert.equal(lengthen(points, [1, 1], 8), points);
  assert.deepEqual(lengthen(points, [2, 1], 8), [[0, 0], [2, 1]]);
});

test("the border runs between unequal pixels, in pieces as long as they are straight", () => {
  const square = Uint8Array.from([0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0]);
  const segments = border(square, { width: 4, height: 4 });
  assert.deepEqual(segments, [[1, 1, 3, 1], [1, 3, 3, 3], [1, 1, 1, 3], [3, 1, 3, 3]]);
  assert.deepEqual(border(new Uint8Array(16), { width: 4, height: 4 }), []);
});

// keys

test("keys have one name each", () => {
  const name = (key, held = {}) => keyName({ key, ...held });
  assert.equal(name("Z", { ctrlKey: true, shiftKey: true }), "Ctrl+Shift+z");
  assert.equal(name("z", { metaKey: true }), "Ctrl+z");
  assert.equal(name("?", { shiftKey: true }), "?");
  assert.equal(name("N", { shiftKey: true }), "n");
  assert.equal(name("Delete", { shiftKey: true }), "Shift+Delete");
  assert.equal(name("[", { ctrlKey: true, altKey: true, getModifierState: () => true }), "[");
});
