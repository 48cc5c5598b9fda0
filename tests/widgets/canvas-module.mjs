// The module that the browser loads, as Node loads it: the file's name does not say that it is one.
import { readFile } from "node:fs/promises";

const source = await readFile(new URL("../../dragstudy/widgets/canvas.js", import.meta.url));

export default await import(`data:text/javascript;base64,${source.toString("base64")}`);
