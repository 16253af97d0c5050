"use strict";
// The gallery: filters, sorting, overlays. All text goes in by textContent.
(() => {
  const data = JSON.parse(document.getElementById("gallery-data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const colors = bytes(document.getElementById("gallery-data").dataset.colormap);
  const $ = (id) => document.getElementById(id);
  const PAGE = 24;
  let shown = PAGE;
  let current = [];

  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const option = (value, text) => {
    const made = element("option", text);
    made.value = value;
    return made;
  };
  const run = () => data.runs[Number($("run").value)];
  const chosenCells = () =>
    [...document.querySelectorAll("#cells input:checked")].map((box) => Number(box.value));
  const className = (number) => (number === null ? "?" : run().classes[number]);
  const shortName = (number) => className(number).split(",")[0];

  function fillRun() {
    const cells = run().cells;
    const first = run().first;
    $("cells").replaceChildren(
      ...cells.map((title, i) => {
        const label = element("label", undefined, "check");
        const box = document.createElement("input");
        Object.assign(box, { type: "checkbox", value: i, checked: i === first });
        label.append(box, title);
        return label;
      }),
    );
    $("score").replaceChildren(...run().scores.map((score, i) => option(i, score.title)));
    const labels = [...new Set(run().images.map((image) => image.label))];
    labels.sort((a, b) => className(a).localeCompare(className(b)));
    $("class").replaceChildren(
      option("", "all classes"),
      ...labels.map((label) => option(label, className(label))),
    );
  }

  // A stored map (h x w, 0..255) at a pixel of the frame: bilinear, corners not aligned.
  function sampled(values, h, w, height, width) {
    const out = new Float32Array(height * width);
    const place = (i, from, to) => Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1);
    for (let y = 0; y < height; y++) {
      const fy = place(y, h, height), y0 = Math.floor(fy), y1 = Math.min(y0 + 1, h - 1), dy = fy - y0;
      for (let x = 0; x < width; x++) {
        const fx = place(x, w, width), x0 = Math.floor(fx), x1 = Math.min(x0 + 1, w - 1), dx = fx - x0;
        const top = values[y0 * w + x0] * (1 - dx) + values[y0 * w + x1] * dx;
        const low = values[y1 * w + x0] * (1 - dx) + values[y1 * w + x1] * dx;
        out[y * width + x] = (top * (1 - dy) + low * dy) / 255;
      }
    }
    return out;
  }

  function heat(cell, width, height, opacity) {
    const layer = document.createElement("canvas");
    Object.assign(layer, { width, height });
    const context = layer.getContext("2d");
    const pixels = context.createImageData(width, height);
    sampled(bytes(cell.map), cell.h, cell.w, height, width).forEach((value, i) => {
      const shade = 3 * Math.round(255 * value);
      pixels.data.set(colors.subarray(shade, shade + 3), 4 * i);
      pixels.data[4 * i + 3] = 255 * opacity * Math.sqrt(value);
    });
    context.putImageData(pixels, 0, 0);
    return layer;
  }

  function outline(context, box, color, dashes) {
    for (const [line, shade, pattern] of [[4, "#000000", []], [2, color, dashes]]) {
      context.lineWidth = line;
      context.strokeStyle = shade;
      context.setLineDash(pattern);
      context.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
    }
  }

  function draw(canvas, image, cell) {
    canvas.width = image.width;
    canvas.height = image.height;
    const picture = new Image();
    picture.onload = () => {
      const context = canvas.getContext("2d");
      context.drawImage(picture, 0, 0, image.width, image.height);
      if ($("heat").checked) {
        context.drawImage(heat(cell, image.width, image.height, Number($("opacity").value)), 0, 0);
      }
      if ($("boxes").checked) {
        image.boxes.forEach((box) => outline(context, box, "#ffffff", []));
        if (cell.box) outline(context, cell.box, "#56b4e9", [7, 5]);
      }
    };
    picture.src = "data:image/jpeg;base64," + image.jpeg;
  }

  const verdict = (cell) =>
    cell.degenerate ? "degenerate map" : cell.hit === null ? "" : cell.hit ? "box right" : "box wrong";
  const number = (value, digits) => (value === null ? "undefined" : value.toFixed(digits));

  function panel(image, index) {
    const cell = image.cells[index];
    const made = element("div", undefined, "panel");
    made.append(element("div", run().cells[index]));
    if (!cell) {
      made.append(element("div", "no map stored"));
      return made;
    }
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${className(image.label)}: ${run().cells[index]}, ${verdict(cell)}`);
    draw(canvas, image, cell);
    made.append(canvas, element("div", verdict(cell), cell.hit ? "yes" : "no"));
    const scores = run().scores.map((score, i) => `${score.title} ${number(cell.scores[i], score.digits)}`);
    made.append(element("div", scores.join(" · "), "scores"));
    return made;
  }

  // The address of an image in the page: its run's number and its id.
  const address = (image) => `#image=${$("run").value}/${encodeURIComponent(image.id)}`;

  function heading(image) {
    const header = element("header");
    header.append(element("strong", shortName(image.label)), document.createElement("br"));
    const sure = image.probability === null ? "" : ` (${(100 * image.probability).toFixed(0)} %)`;
    const right = image.label === image.predicted;
    header.append(
      element("span", right ? `predicted${sure}` : `predicted: ${shortName(image.predicted)}${sure}`, right ? "yes" : "no"),
      element("div", image.id, "soft"),
    );
    const link = element("a", "#", "here");
    link.setAttribute("href", address(image));
    link.setAttribute("aria-label", `Link to ${image.id}`);
    link.addEventListener("click", (event) => event.stopPropagation());
    header.append(link);
    return header;
  }

  function card(image, cells) {
    const made = element("article", undefined, cells.length > 1 ? "card wide" : "card");
    made.tabIndex = 0;
    made.dataset.id = image.id;
    const panels = element("div", undefined, "panels");
    panels.append(...cells.map((index) => panel(image, index)));
    made.append(heading(image), panels);
    made.addEventListener("click", () => open(image));
    made.addEventListener("keydown", (event) => {
      const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
      if (step && made[step]) made[step].focus();
      else if (event.key === "Enter") open(image);
      else return;
      event.preventDefault();
    });
    return made;
  }

  const outcomes = {
    all: () => true,
    hit: (image, cell) => cell !== null && cell.hit === 1,
    miss: (image, cell) => cell !== null && cell.hit === 0,
    degenerate: (image, cell) => cell !== null && cell.degenerate,
    wrong: (image) => image.predicted !== null && image.label !== image.predicted,
  };

  function update() {
    if (!data.runs.length || !run().images.length) {
      $("count").textContent = "No pictures were kept for this run.";
      $("cards").replaceChildren();
      $("more").hidden = true;
      return;
    }
    const cells = chosenCells();
    const first = cells.length ? cells[0] : 0;
    const score = Number($("score").value);
    const text = $("text").value.trim().toLowerCase();
    const label = $("class").value;
    const keep = outcomes[$("outcome").value];
    current = run().images.filter(
      (image) =>
        keep(image, image.cells[first]) &&
        (label === "" || image.label === Number(label)) &&
        (text === "" || `${image.id} ${className(image.label)} ${className(image.predicted)}`.toLowerCase().includes(text)),
    );
    const value = (image) => (image.cells[first] ? image.cells[first].scores[score] : null);
    const sign = (run().scores[score] && run().scores[score].better === "lower" ? 1 : -1) * ($("order").value === "best" ? 1 : -1);
    current.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      return x === null ? (y === null ? 0 : 1) : y === null ? -1 : sign * (x - y); // undefined last
    });
    $("count").textContent = `${current.length} of ${run().images.length} images`;
    $("cards").replaceChildren(...current.slice(0, shown).map((image) => card(image, cells)));
    $("more").hidden = current.length <= shown;
  }

  const dialog = $("large");
  let opened = 0;
  function open(image) {
    opened = current.indexOf(image);
    const everything = run().cells.map((_, index) => index);
    const panels = element("div", undefined, "panels");
    panels.append(...everything.map((index) => panel(image, index)));
    $("large-body").replaceChildren(heading(image), panels);
    if (!dialog.open) dialog.showModal();
    history.replaceState(null, "", address(image));
  }
  const step = (by) => {
    const next = current[opened + by];
    if (next) open(next);
  };
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") step(1);
    if (event.key === "ArrowLeft") step(-1);
  });
  dialog.addEventListener("close", () => {
    history.replaceState(null, "", "#gallery");
    const from = $("cards").children[opened];
    if (from) from.focus();
  });

  $("run").replaceChildren(...data.runs.map((one, i) => option(i, one.name)));
  $("run").addEventListener("change", () => { shown = PAGE; fillRun(); update(); });
  $("filters").addEventListener("input", (event) => {
    if (event.target !== $("run")) { shown = PAGE; update(); }
  });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("more").addEventListener("click", () => { shown += PAGE; update(); });
  if (data.runs.length) fillRun();
  update();

  // Open the image that the address names, whatever the filters say.
  function follow() {
    const found = /^#image=(\d+)\/(.+)$/.exec(location.hash);
    if (!found || !data.runs[Number(found[1])]) return;
    const image = data.runs[Number(found[1])].images.find((one) => one.id === decodeURIComponent(found[2]));
    if (!image) return;
    if ($("run").value !== found[1]) { $("run").value = found[1]; fillRun(); }
    $("filters").querySelectorAll("#outcome, #class").forEach((box) => { box.selectedIndex = 0; });
    $("text").value = "";
    update();
    open(image);
  }
  window.addEventListener("hashchange", follow);
  follow();
  document.documentElement.dataset.ready = "yes";
})();
