// The line that says what happens, and what the editor around it needs of the page.

function render({ model, el }) {
  const line = document.createElement("div");
  line.setAttribute("role", "status"); // read out when its text changes, so it stays in the page
  const show = () => {
    line.textContent = model.get("text");
    line.className = `dragstudy-status dragstudy-${model.get("kind")}`;
  };
  const lose = () => {
    line.textContent = "The kernel that knew this editor is gone: run the cell again.";
    line.className = "dragstudy-status dragstudy-error";
  };
  model.on("change:text change:kind", show);
  model.on("comm_live_update", lose); // of a model of ipywidgets, which is alive when it is first shown
  show();
  el.append(line);

  const closing = new AbortController();
  const sliders = new MutationObserver(() => nameSliders(el.closest(".dragstudy-editor")));
  const placed = new ResizeObserver(() => {
    const root = el.closest(".dragstudy-editor");
    if (!root) return;
    placed.disconnect();
    root.role = "group";
    root.ariaLabel = "Drag editor";
    root.addEventListener("focusin", ({ target }) => keepKeys(target), { signal: closing.signal });
    sliders.observe(root, { childList: true, subtree: true });
    nameSliders(root);
  });
  placed.observe(el);
  return () => {
    model.off("change:text change:kind", show);
    model.off("comm_live_update", lose);
    closing.abort();
    placed.disconnect();
    sliders.disconnect();
  };
}

/**
 * A letter typed on a button is no command of the notebook: `d d` would delete the cell. JupyterLab looks for
 * this on the element itself first. In a text field it knows by itself.
 */
function keepKeys(target) {
  if (!target.matches(":read-write")) target.dataset.lmSuppressShortcuts = "true";
}

/** ipywidgets puts a label beside a slider, but does not tell the slider. */
function nameSliders(root) {
  for (const handle of root?.querySelectorAll(".noUi-handle:not([aria-label])") ?? []) {
    const label = handle.closest(".widget-inline-hbox")?.querySelector(".widget-label");
    if (label) handle.ariaLabel = label.textContent;
  }
}

export default { render };
