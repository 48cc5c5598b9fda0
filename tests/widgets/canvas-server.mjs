// For the test against Python: a line of JSON {actions, size, images} in, a line of JSON with every state out.
import { createInterface } from "node:readline";
import canvas from "./canvas-module.mjs";

function answer({ actions, size: [width, height], images }) {
  const decoded = new Map(Object.entries(images).map(([png, pixels]) => [png, Uint8Array.from(pixels)]));
  let history = canvas.emptyHistory();
  return actions.map((action) => {
    const before = history;
    history = canvas.reduce(history, action);
    const raster = canvas.rasterise(history.present.mask, { width, height }, decoded);
    return { ...history, changed: history !== before, raster: raster && Array.from(raster) };
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(answer(JSON.parse(line)))}\n`);
}
