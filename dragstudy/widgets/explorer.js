// Sliders and lists over one picture; explorer.py says what they mean. They are the browser's own controls, so
// that their names, values and keys are what keyboards and screen readers know.

function makeControl(axis, place, move) {
  const id = `explorer-${Math.random().toString(36).slice(2)}`;
  const label = Object.assign(document.createElement("label"), { htmlFor: id, textContent: axis.name });
  const input = document.createElement(axis.slider ? "input" : "select");
  const value = document.createElement("span");
  input.id = id;
  // JupyterLab's keys stay out: else pressing d twice on a slider deletes the cell. It has to be said of the
  // very element that has the focus, for that one is asked before its parents.
  input.setAttribute("data-lm-suppress-shortcuts", "true");
  if (axis.slider) {
    Object.assign(input, { type: "range", min: 0, max: axis.labels.length - 1, step: 1 });
    value.setAttribute("aria-hidden", "true"); // the slider itself says it
    value.style.minWidth = `${Math.max(...axis.labels.map((text) => text.length))}ch`;
  } else {
    input.append(...axis.labels.map((text, index) => new Option(text, index)));
  }
  const show = (index) => {
    input.value = index;
    if (axis.slider) {
      input.setAttribute("aria-valuetext", axis.labels[index]);
      value.textContent = axis.labels[index];
    }
  };
  show(place);
  input.addEventListener("input", () => {
    show(Number(input.value));
    move(Number(input.value));
  });
  return { nodes: [label, input, value], show };
}

function render({ model, el }) {
  el.classList.add("dragstudy-explorer");
  const controls = model.get("_axes").map((axis, index) =>
    makeControl(axis, model.get("_places")[index], (place) => {
      model.set("_places", model.get("_places").map((old, other) => (other === index ? place : old)));
      model.save_changes();
    }),
  );
  const panel = document.createElement("div");
  panel.className = "controls";
  panel.append(...controls.flatMap((control) => control.nodes));

  const figure = document.createElement("figure");
  const image = document.createElement("img");
  const caption = document.createElement("figcaption");
  const problem = document.createElement("p");
  caption.setAttribute("aria-live", "polite");
  problem.setAttribute("role", "alert");
  figure.append(image, caption);
  el.append(panel, figure, problem);

  const changed = {
    _places: () => controls.forEach((control, index) => control.show(model.get("_places")[index])),
    _busy: () => figure.setAttribute("aria-busy", model.get("_busy")),
    _alt: () => (image.alt = model.get("_alt")),
    _problem: () => (problem.textContent = model.get("_problem")),
    sentence: () => (caption.textContent = model.get("sentence")),
    _image: () => {
      URL.revokeObjectURL(image.src);
      const bytes = model.get("_image");
      image.hidden = !bytes.byteLength;
      image.src = bytes.byteLength ? URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" })) : "";
    },
  };
  for (const [name, update] of Object.entries(changed)) {
    update();
    model.on(`change:${name}`, update);
  }
  return () => {
    for (const [name, update] of Object.entries(changed)) model.off(`change:${name}`, update);
    URL.revokeObjectURL(image.src);
  };
}

export default { render };
