// A photograph with its drags, one edit of it and three questions; rating.py says what they mean. The answers are
// the browser's own radio buttons, so that their names, values and keys are what keyboards and screen readers know.

const MARKS = ["1", "2", "3", "4", "5"];
const SVG = "http://www.w3.org/2000/svg";

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// JupyterLab's keys stay out: else pressing d twice deletes the cell. It has to be said of the very element that
// has the focus, for that one is asked before its parents.
function keepKeys(control) {
  control.setAttribute("data-lm-suppress-shortcuts", "true");
  return control;
}

function makeQuestion({ name, question }, id, changed) {
  const radios = MARKS.map((mark) => {
    const radio = element("input", { type: "radio", name: `${id}-${name}`, value: mark, id: `${id}-${name}-${mark}` });
    radio.addEventListener("change", changed);
    return keepKeys(radio);
  });
  const row = element("div", { className: "marks" }, element("span", { textContent: "very poor" }));
  for (const radio of radios) row.append(element("label", { htmlFor: radio.id }, radio, radio.value));
  row.append(element("span", { textContent: "very good" }));
  const node = element("fieldset", {}, element("legend", { textContent: question }), row);
  return {
    name,
    node,
    radios,
    value: () => Number(radios.find((radio) => radio.checked)?.value ?? 0),
    set: (mark) => radios.forEach((radio) => (radio.checked = Number(radio.value) === mark)),
    focus: () => (radios.find((radio) => radio.checked) ?? radios[0]).focus(),
  };
}

function line(drag, attributes) {
  const made = document.createElementNS(SVG, "line");
  const [[x1, y1], [x2, y2]] = drag.map((end) => end.map((value) => value + 0.5)); // pixel centres are integers
  for (const [name, value] of Object.entries({ x1, y1, x2, y2, ...attributes })) made.setAttribute(name, value);
  return made;
}

function dot([x, y], radius) {
  const made = document.createElementNS(SVG, "circle");
  for (const [name, value] of Object.entries({ cx: x + 0.5, cy: y + 0.5, r: radius })) made.setAttribute(name, value);
  return made;
}

// A line from each handle to a dot at its target, dark below and light above, so that it is seen on any picture.
function drawDrags(svg, drags, [width, height]) {
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const unit = Math.max(width, height) / 256;
  const strokes = [["dark", 2.2 * unit], ["light", 1.1 * unit]];
  svg.replaceChildren();
  for (const [className, thick] of strokes) {
    for (const drag of drags) svg.append(line(drag, { class: className, "stroke-width": thick }));
  }
  for (const [, target] of drags) svg.append(dot(target, (drags.length > 12 ? 1.2 : 2.5) * unit));
}

function render({ model, el }) {
  el.classList.add("dragstudy-rating");
  const id = `rating-${Math.random().toString(36).slice(2)}`;
  const photograph = element("img", { alt: "the photograph, with a line for each drag and a dot at its target" });
  const arrows = document.createElementNS(SVG, "svg");
  arrows.setAttribute("aria-hidden", "true");
  const edit = element("img");
  const figure = (text, ...layers) =>
    element(
      "figure",
      {},
      element("div", { className: "layers" }, ...layers),
      element("figcaption", { textContent: text }),
    );
  const pictures = element(
    "div",
    { className: "pictures" },
    figure("photograph; each line leads to a dot, where it should end", photograph, arrows),
    figure("edit", edit),
  );
  const status = element("p", { className: "status" });
  status.setAttribute("aria-live", "polite");
  const problem = element("p");
  problem.setAttribute("role", "alert");
  const back = keepKeys(element("button", { type: "button", textContent: "Back" }));
  const next = keepKeys(element("button", { type: "button", textContent: "Save and go on" }));
  let waiting = false; // for the kernel to show another edit
  let focused = false; // whether the focus was in here when the wait began: a button that is disabled loses it

  const questions = model.get("_criteria").map((criterion) => makeQuestion(criterion, id, () => enable()));
  const done = () => model.get("place") >= model.get("_count");
  const complete = () => questions.every((question) => question.value());
  const enable = () => {
    next.disabled = waiting || done() || !complete();
    back.disabled = waiting || model.get("place") === 0;
  };
  const ask = (message) => {
    waiting = true;
    focused = el.contains(document.activeElement);
    enable();
    model.send({ ...message, place: model.get("place") });
  };
  const save = () => {
    if (waiting || done() || !complete()) return;
    const marks = Object.fromEntries(questions.map((question) => [question.name, question.value()]));
    ask({ type: "rate", marks });
  };
  next.addEventListener("click", save);
  back.addEventListener("click", () => ask({ type: "back" }));

  const form = element("div", { className: "questions" }, ...questions.map((question) => question.node));
  const panel = element("div", { className: "panel" }, form, element("div", { className: "buttons" }, back, next));
  el.append(status, pictures, panel, problem);

  const keys = (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const here = questions.findIndex((question) => question.node.contains(event.target));
    if (MARKS.includes(event.key) && !done()) {
      const open = questions.findIndex((question) => !question.value());
      const asked = here >= 0 ? here : Math.max(open, 0);
      questions[asked].set(Number(event.key));
      enable();
      if (asked + 1 < questions.length) questions[asked + 1].focus();
      else if (!next.disabled) next.focus();
    } else if (event.key === "Enter" && here >= 0) {
      save();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  el.addEventListener("keydown", keys);

  const picture = (image, bytes) => {
    URL.revokeObjectURL(image.src);
    image.src = bytes.byteLength ? URL.createObjectURL(new Blob([bytes], { type: "image/png" })) : "";
  };
  const show = () => {
    const [place, count] = [model.get("place"), model.get("_count")];
    waiting = false;
    panel.classList.toggle("done", done());
    pictures.hidden = form.hidden = done();
    status.textContent = done() ? `All ${count} edits are rated. Thank you.` : `Edit ${place + 1} of ${count}`;
    edit.alt = `edit ${place + 1} of ${count}`;
    if (!done()) drawDrags(arrows, model.get("_drags"), model.get("_size"));
    for (const question of questions) question.set(model.get("_marks")[question.name] ?? 0);
    enable();
    if (focused) (done() ? back : questions[0]).focus();
    focused = false;
  };
  const refused = (message) => {
    if (message.type !== "refused") return;
    waiting = false;
    enable();
    if (focused) next.focus();
    focused = false;
  };
  const changed = {
    place: show,
    _photograph: () => picture(photograph, model.get("_photograph")),
    _edit: () => picture(edit, model.get("_edit")),
    _problem: () => (problem.textContent = model.get("_problem")),
  };
  for (const [name, update] of Object.entries(changed)) {
    update();
    model.on(`change:${name}`, update);
  }
  model.on("msg:custom", refused);
  return () => {
    for (const [name, update] of Object.entries(changed)) model.off(`change:${name}`, update);
    model.off("msg:custom", refused);
    el.removeEventListener("keydown", keys);
    for (const image of [photograph, edit]) URL.revokeObjectURL(image.src);
  };
}

export default { render };
