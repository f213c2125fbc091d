// The explorer of documents. Opened from disk, a page may load scripts and images and nothing else, so every piece of
// data is a script that calls haloReceive(name, JSON). All text of runs goes through textContent: it is never markup.
"use strict";
(() => {
  const LOWEST = 0.1; // bottom of the colours, in multiples of the mean weight
  const KEPT = 16; // documents that stay in memory
  const $ = (id) => document.getElementById(id);

  // Loading

  const waiting = new Map();
  const loaded = new Map();

  window.haloReceive = (name, text) => waiting.get(name)?.(JSON.parse(text));

  function load(name) {
    if (!loaded.has(name)) {
      if (loaded.size > KEPT) {
        const oldest = [...loaded.keys()].find((key) => !key.endsWith("index"));
        loaded.delete(oldest);
      }
      loaded.set(name, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        waiting.set(name, resolve);
        script.src = `data/${name}.js`;
        script.onload = () => script.remove();
        script.onerror = () => {
          script.remove();
          loaded.delete(name);
          reject(new Error(`data/${name}.js cannot be loaded: keep the folder of the report together.`));
        };
        document.head.append(script);
      }));
    }
    return loaded.get(name);
  }

  // Making elements

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(properties)) {
      if (key in element) element[key] = value;
      else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }

  function drawn(tag, attributes) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  }

  function fill(select, entries, chosen) {
    select.replaceChildren(...entries.map(([value, text]) => make("option", { value, textContent: text })));
    select.value = entries.some(([value]) => String(value) === String(chosen)) ? chosen : entries[0][0];
  }

  const number = (value) => (value === null ? "–" : String(Number(value.toPrecision(3))).replace("-", "−"));
  const percent = (share) => `${number(100 * share)} %`;

  // What is chosen. `step` counts tokens from 0; `layer` is the layer's own number in the first panel with maps.

  let report;
  const chosen = { task: "", run: 0, with: null, doc: null, step: 0, layer: null, view: null };
  let index; // of the documents of the task in the run
  let panels = [];
  let turn = 0; // of the latest request: an earlier one that ends later is dropped

  const folderOf = (run) => report.runs[run].tasks[chosen.task];
  const nameOf = (run) => {
    const { label, intervention } = report.runs[run];
    return intervention ? `${label} (${intervention})` : label;
  };

  // The list of documents

  function visible() {
    const count = $("count").value;
    const outcome = $("outcome").value;
    const places = index.doc.map((_, place) => place).filter((place) => {
      if (count !== "" && String(index.count[place]) !== count) return false;
      if (outcome === "wrong") return index.correct[place] === false;
      if (outcome === "right") return index.correct[place] === true;
      return outcome !== "none" || index.predicted[place] === null;
    });
    if ($("order").value === "errors") places.sort((a, b) => badness(b) - badness(a) || a - b);
    return places;
  }

  function badness(place) {
    if (index.correct[place] !== false) return index.correct[place] === null ? -1 : -2;
    return index.predicted[place] === null ? Infinity : Math.abs(index.predicted[place] - index.count[place]);
  }

  function entry(place) {
    const { doc, count, predicted, correct, reply, mapped } = index;
    const mark = correct[place] === null ? " " : correct[place] ? "✓" : "✗";
    let text = reply[place];
    if (count[place] !== null) {
      const error = predicted[place] === null ? "" : predicted[place] - count[place];
      const signed = error > 0 ? ` (+${error})` : error < 0 ? ` (−${-error})` : "";
      text = `${count[place]} → ${predicted[place] ?? "none"}${signed}`;
    }
    return make("option", {
      value: doc[place],
      textContent: `${mark} ${doc[place]}: ${text}${mapped[place] ? "" : " · no maps"}`,
      className: correct[place] === false ? "wrong" : "",
    });
  }

  function listDocuments() {
    const places = visible();
    const list = $("documents");
    list.replaceChildren(...places.map(entry));
    const shown = places.some((place) => index.doc[place] === chosen.doc);
    if (!shown) chosen.doc = places.length ? index.doc[places[0]] : null;
    list.value = chosen.doc === null ? "" : String(chosen.doc);
    const count = `${places.length} of ${index.doc.length} documents`;
    $("status").textContent = places.length ? count : `${count}: change the filters to see some.`;
  }

  // The choices, from the widest to the narrowest: each redraws what depends on it.

  async function chooseTask() {
    const holders = report.runs.map((_, run) => run).filter((run) => folderOf(run));
    if (!holders.includes(chosen.run)) chosen.run = holders[0];
    if (chosen.with === chosen.run || !holders.includes(chosen.with)) chosen.with = null;
    fill($("task"), report.tasks.map((task) => [task, task]), chosen.task);
    fill($("run"), holders.map((run) => [run, nameOf(run)]), chosen.run);
    const others = holders.filter((run) => run !== chosen.run);
    fill($("with"), [["", others.length ? "nothing" : "no other run"], ...others.map((run) => [run, nameOf(run)])],
      chosen.with ?? "");
    const mine = ++turn;
    const found = await load(`${folderOf(chosen.run)}/index`);
    if (mine !== turn) return;
    index = found;
    const counts = [...new Set(index.count)].filter((count) => count !== null).sort((a, b) => a - b);
    fill($("count"), [["", "all"], ...counts.map((count) => [count, String(count)])], $("count").value);
    await filterDocuments();
  }

  function filterDocuments() {
    listDocuments();
    return showDocument();
  }

  async function showDocument() {
    const mine = ++turn;
    const runs = [chosen.run, ...(chosen.with === null ? [] : [chosen.with])];
    const failed = (run) => (error) => ({ run, place: -1, missing: error.message });
    const found = chosen.doc === null ? [] : await Promise.all(runs.map((run) => loadDocument(run).catch(failed(run))));
    if (mine !== turn) return;
    panels = found.map(buildPanel);
    $("panels").replaceChildren(...panels.map((panel) => panel.element));
    setSliders();
    draw();
  }

  async function loadDocument(run) {
    const folder = folderOf(run);
    const there = await load(`${folder}/index`);
    // Documents of two runs are the same if their ids are.
    const id = index.id[index.doc.indexOf(chosen.doc)];
    const place = there.id.indexOf(id);
    if (place < 0) return { run, place, missing: "This run has no such document." };
    const found = await load(`${folder}/${place}`);
    return { run, place, index: there, ...found, maps: found.maps && decode(found.maps) };
  }

  function decode(maps) {
    if (maps.bytes) return maps;
    const binary = atob(maps.codes);
    maps.bytes = Uint8Array.from(binary, (char) => char.charCodeAt(0));
    maps.codes = "";
    return maps;
  }

  // Sliders: they follow the first panel with maps; another model shows the layer of nearest relative depth.

  const leading = () => panels.find((panel) => panel.maps);

  function setSliders() {
    const maps = leading()?.maps;
    const longest = Math.max(0, ...panels.map((panel) => panel.maps?.steps.length ?? 0));
    $("step").max = Math.max(0, longest - 1);
    chosen.step = Math.min(chosen.step, Math.max(0, longest - 1));
    $("step").value = chosen.step;
    const layers = maps ? maps.layers.map(([layer]) => layer) : [];
    if (maps && !layers.includes(chosen.layer)) chosen.layer = layers[layers.length - 1];
    $("layer").max = Math.max(0, layers.length - 1);
    $("layer").value = Math.max(0, layers.indexOf(chosen.layer));
    for (const id of ["step", "layer"]) $(id).disabled = !maps || $(id).max === "0";
    const views = maps?.views ?? [];
    if (chosen.view === null || chosen.view >= views.length) chosen.view = Math.max(0, views.findIndex((view) => isWhole(view.box)));
    $("view-label").hidden = views.length < 2;
    fill($("view"), views.length ? views.map((view, place) => [place, describeView(view, place)]) : [[0, ""]], chosen.view);
    $("legend").hidden = !maps;
  }

  const isWhole = (box) => box !== null && box.every((edge, place) => edge === [0, 0, 1, 1][place]);

  function describeView({ image, height, width, box }, place) {
    const part = isWhole(box) ? "whole image" : box === null ? "a part of the image" : `part ${box.map(number).join(", ")}`;
    return `${place + 1}: image ${image + 1}, ${part}, ${height} × ${width}`;
  }

  function layerOf(panel) {
    const first = leading();
    const layers = panel.maps.layers.map(([layer]) => layer);
    if (panel === first) return Math.max(0, layers.indexOf(chosen.layer));
    const depth = ({ run, maps }, layer) =>
      layer / Math.max(1, (report.runs[run].depth ?? Math.max(...maps.layers.map(([one]) => one)) + 1) - 1);
    const wanted = depth(first, chosen.layer);
    const distances = layers.map((layer) => Math.abs(depth(panel, layer) - wanted));
    return distances.indexOf(Math.min(...distances));
  }

  // Panels

  function buildPanel(found) {
    const { run, index: there, place } = found;
    const name = make("h3", { textContent: nameOf(run) });
    const facts = make("p", { className: "facts" });
    const element = make("article", { className: "panel", "aria-label": `Run ${nameOf(run)}` }, name, facts);
    const panel = { ...found, element, facts };
    if (place < 0) {
      facts.textContent = report.runs[run].model;
      element.append(make("p", { className: "missing", textContent: found.missing }));
      return panel;
    }
    if (found.maps || !found.picture.reason) element.append(...buildStage(panel));
    if (found.picture.reason) {
      element.append(make("p", { className: "missing", textContent: `No image: ${found.picture.reason}.` }));
    }
    if (!found.maps) element.append(make("p", { className: "missing", textContent: `No maps: ${found.missing}.` }));
    if (found.maps?.views.length === 0) {
      element.append(make("p", {
        className: "missing",
        textContent: "No heat map: the image tokens of this model lie in no grid.",
      }));
    }
    if (found.maps?.calls > 1) {
      element.append(make("p", {
        className: "missing",
        textContent: `The model was called ${found.maps.calls} times for this reply; the maps are those of the first call.`,
      }));
    }
    element.append(buildAnswer(panel, there, place));
    if (found.maps) element.append(buildTokens(panel));
    panel.numbers = make("dl", { className: "numbers" });
    if (found.maps) {
      element.append(make("details", { open: true }, make("summary", { textContent: "This token and layer" }), panel.numbers));
    }
    if (found.metrics.length) {
      const all = make("dl", { className: "numbers" }, ...found.metrics.map(([key, value]) => pair(key, number(value))));
      element.append(make("details", { open: true }, make("summary", { textContent: "This document" }), all));
    }
    return panel;
  }

  const pair = (key, value) => make("div", {}, make("dt", { textContent: key }), make("dd", { textContent: value }));

  function buildStage(panel) {
    const { picture } = panel;
    const view = panel.maps?.views[0];
    const width = picture.width ?? (view ? 512 : 1);
    const height = picture.height ?? (view ? Math.round((512 * view.height) / view.width) : 1);
    panel.stage = make("div", { className: "stage", tabIndex: 0, role: "group" });
    panel.stage.style.aspectRatio = `${width} / ${height}`;
    panel.size = [width, height];
    if (picture.src) {
      panel.stage.append(make("img", { src: picture.src, alt: describePicture(panel) }));
    }
    const scale = 512 / Math.max(width, height);
    panel.canvas = make("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
    panel.marks = drawn("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    panel.dots = drawn("g", {});
    for (const [x, y] of picture.centers ?? []) {
      for (const kind of ["edge", "dot"]) panel.dots.append(drawn("circle", { class: kind, cx: x, cy: y, r: picture.radius }));
    }
    panel.cursor = drawn("rect", { width: 0, height: 0 });
    panel.marks.append(panel.dots, panel.cursor);
    panel.stage.append(panel.canvas, panel.marks);
    panel.readout = make("p", { className: "readout", "aria-live": "polite" });
    panel.stage.addEventListener("pointermove", (event) => {
      const frame = panel.stage.getBoundingClientRect();
      point(panel, cellAt(panel, (event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height));
    });
    panel.stage.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      const shown = viewOf(panel);
      if (!move || !shown) return;
      event.preventDefault();
      const [row, column] = panel.cell ?? [Math.floor(shown.height / 2), Math.floor(shown.width / 2)];
      point(panel, [
        Math.min(shown.height - 1, Math.max(0, row + move[0])),
        Math.min(shown.width - 1, Math.max(0, column + move[1])),
      ]);
    });
    return [panel.stage, panel.readout];
  }

  function describePicture({ picture }) {
    const dots = picture.centers.length;
    return dots ? `The image: ${dots} dots` : "The image that the model saw";
  }

  function buildAnswer({ question, reply, target, status, digit_status: digits }, there, place) {
    const list = make("dl", { className: "answer" });
    const add = (term, text, className = "") =>
      list.append(make("dt", { textContent: term }), make("dd", { textContent: text, className }));
    if (question) add("Question", question);
    add("Reply", reply || "(empty)");
    if (there.count[place] !== null) {
      add("True count", String(there.count[place]));
      const right = there.correct[place];
      const found = there.predicted[place] ?? "none";
      const verdict = right === null ? "" : right ? ", right" : ", wrong";
      add("Counted", `${found}${status && status !== "ok" ? ` (${status})` : ""}${verdict}`, right ? "right-text" : "wrong-text");
    } else if (target) {
      add("Target", target);
    }
    if (digits) add("Digits", `${digits.replace("_", " ")} in its tokens`);
    return list;
  }

  function buildTokens(panel) {
    const digits = new Map();
    panel.digit_steps.forEach((step, place) => digits.set(step, [...(digits.get(step) ?? []), place + 1]));
    panel.tokens = panel.maps.steps.map(([text, end], step) => {
      const button = make("button", { type: "button", textContent: text.replaceAll("\n", "⏎") || "∅" });
      const notes = [...(digits.get(step) ?? []).map((digit) => `digit ${digit}`), ...(end ? ["end"] : [])];
      if (notes.length) button.append(make("small", { textContent: ` ${notes.join(", ")}` }));
      button.classList.toggle("digit", digits.has(step));
      button.setAttribute("aria-label", `Token ${step + 1}: ${text}${notes.length ? `, ${notes.join(", ")}` : ""}`);
      button.addEventListener("click", () => {
        chosen.step = step;
        $("step").value = step;
        draw();
      });
      return button;
    });
    const items = panel.tokens.map((button) => make("li", {}, button));
    return make("ol", { className: "tokens", "aria-label": "Tokens of the reply" }, ...items);
  }

  // Heat maps

  function mapOf(panel) {
    const { maps } = panel;
    if (!maps || chosen.step >= maps.steps.length) return null;
    const layer = layerOf(panel);
    const place = chosen.step * maps.layers.length + layer;
    const at = place * maps.tokens;
    return { layer, place, peak: maps.peaks[place], codes: maps.bytes.subarray(at, at + maps.tokens) };
  }

  function viewOf({ maps }) {
    return maps?.views[Math.min(chosen.view, maps.views.length - 1)];
  }

  function startOf({ maps }, view) {
    return maps.views.slice(0, maps.views.indexOf(view)).reduce((sum, one) => sum + one.height * one.width, 0);
  }

  // Over white where there is no image, so that a colour means the same in every panel and in the scale.
  const strength = () => Math.round(2.55 * $("strength").value);
  const weight = (code, peak) => (code === 0 ? 0 : report.floor * (peak / report.floor) ** ((code - 1) / 254));

  function highest() {
    const all = panels.filter((panel) => panel.maps).flatMap((panel) =>
      $("scale").value === "shown" ? [mapOf(panel)?.peak ?? 0] : panel.maps.peaks.map((peak) => peak ?? 0));
    return Math.max(2, ...all);
  }

  function colour(value, top) {
    const place = Math.min(1, Math.max(0, Math.log(value / LOWEST) / Math.log(top / LOWEST))) * (report.colours.length - 1);
    const low = Math.min(report.colours.length - 2, Math.floor(place));
    return report.colours[low].map((part, channel) => part + (place - low) * (report.colours[low + 1][channel] - part));
  }

  function draw() {
    const top = highest();
    for (const panel of panels.filter((one) => one.place >= 0)) drawPanel(panel, top);
    drawLegend(top);
    const first = leading();
    const token = first && (first.maps.steps[chosen.step]?.[0] ?? "");
    const layer = first && first.maps.layers[layerOf(first)];
    say("step", first ? `${chosen.step + 1} of ${Number($("step").max) + 1}: “${token}”` : "no maps");
    say("layer", first ? `${layer[0]} (${layer[1].replace("_", " ")})` : "no maps");
    say("strength", `${$("strength").value} %`);
    remember();
  }

  function say(id, text) {
    $(`${id}-text`).textContent = text;
    $(id).setAttribute("aria-valuetext", text);
  }

  function drawPanel(panel, top) {
    const { model, heads } = report.runs[panel.run];
    const map = mapOf(panel);
    const view = viewOf(panel);
    const facts = [model];
    if (panel.maps) {
      if (view) facts.push(`${view.height} × ${view.width} image tokens`);
      else facts.push(`${panel.maps.tokens} image tokens`);
      if (heads) facts.push(`${heads} heads`);
      if (map) facts.push(`layer ${panel.maps.layers[map.layer].join(", ").replace("_", " ")}`);
    }
    panel.facts.textContent = facts.filter(Boolean).join(" · ");
    panel.tokens?.forEach((button, step) => button.setAttribute("aria-pressed", String(step === chosen.step)));
    if (panel.stage) {
      panel.dots.style.display = $("dots").checked ? "" : "none";
      paint(panel, map, view, top);
      point(panel, view ? panel.cell : null);
    }
    if (panel.maps) describeMap(panel, map);
  }

  function paint(panel, map, view, top) {
    const { canvas } = panel;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!map || !view || map.peak === null) return;
    const start = startOf(panel, view);
    const table = Array.from({ length: 256 }, (_, code) => colour(weight(code, map.peak), top));
    const cells = new ImageData(view.width, view.height);
    const opacity = strength();
    for (let cell = 0; cell < view.height * view.width; cell += 1) {
      cells.data.set([...table[map.codes[start + cell]], opacity], 4 * cell);
    }
    const small = make("canvas", { width: view.width, height: view.height });
    small.getContext("2d").putImageData(cells, 0, 0);
    context.imageSmoothingEnabled = false;
    const [left, upper, right, lower] = boxOf(panel, view).map((edge, place) => edge * (place % 2 ? canvas.height : canvas.width));
    context.drawImage(small, left, upper, right - left, lower - upper);
  }

  // A view whose place in the image is not known, or of another image than the one shown, fills the stage.
  const boxOf = (panel, view) => (panel.picture.src && view.image === 0 && view.box) || [0, 0, 1, 1];

  function cellAt(panel, x, y) {
    const view = viewOf(panel);
    if (!view) return null;
    const [left, upper, right, lower] = boxOf(panel, view);
    const row = Math.floor(((y - upper) / (lower - upper)) * view.height);
    const column = Math.floor(((x - left) / (right - left)) * view.width);
    return row >= 0 && column >= 0 && row < view.height && column < view.width ? [row, column] : null;
  }

  function point(panel, cell) {
    const map = mapOf(panel);
    const view = viewOf(panel);
    panel.cell = cell && view && cell[0] < view.height && cell[1] < view.width ? cell : null;
    if (!map || !view || map.peak === null) {
      panel.cursor.setAttribute("width", 0);
      panel.readout.textContent = panel.maps && !map ? "This reply has no such token." : map ? "This layer sees no image token." : "";
      return;
    }
    const start = startOf(panel, view);
    const best = map.codes.subarray(start, start + view.height * view.width).reduce((most, code, at, all) => (code > all[most] ? at : most), 0);
    const [row, column] = panel.cell ?? [Math.floor(best / view.width), best % view.width];
    const value = weight(map.codes[start + row * view.width + column], map.peak);
    const text = `row ${row + 1}, column ${column + 1}: ${value ? number(value) : `below ${report.floor}`} × mean, ` +
      `${percent(value / panel.maps.tokens)} of the attention to the image`;
    panel.readout.textContent = panel.cell ? text : `Largest: ${text}`;
    panel.stage.setAttribute("aria-label", `Attention map. Arrow keys move over its cells. Largest: ${text}`);
    const [left, upper, right, lower] = boxOf(panel, view);
    const [width, height] = [(panel.size[0] * (right - left)) / view.width, (panel.size[1] * (lower - upper)) / view.height];
    const corner = { x: panel.size[0] * left + column * width, y: panel.size[1] * upper + row * height };
    for (const [key, size] of Object.entries({ ...corner, width: panel.cell ? width : 0, height: panel.cell ? height : 0 })) {
      panel.cursor.setAttribute(key, size);
    }
  }

  function describeMap(panel, map) {
    const rows = [];
    if (map) {
      const mass = panel.maps.mass[map.place];
      rows.push(["visual_mass", mass === null ? "–" : percent(mass)]);
      rows.push(["peak, × mean", number(map.peak)]);
      for (const [key, values] of panel.maps.scores) rows.push([key, number(values[map.place])]);
    }
    panel.numbers.replaceChildren(...rows.map(([key, value]) => pair(key, value)));
  }

  function drawLegend(top) {
    const ramp = $("ramp");
    const context = ramp.getContext("2d");
    const pixels = context.createImageData(ramp.width, 1);
    const at = (place) => LOWEST * (top / LOWEST) ** place;
    for (let x = 0; x < ramp.width; x += 1) pixels.data.set([...colour(at(x / (ramp.width - 1)), top), strength()], 4 * x);
    context.putImageData(pixels, 0, 0);
    const ticks = [LOWEST, 1, 10, 100, 1000].filter((tick) => 4 * tick < top);
    $("ticks").replaceChildren(...[...ticks, top].map((tick) => {
      const text = tick === LOWEST ? `≤ ${LOWEST}` : number(tick);
      const mark = make("span", { textContent: `${text}×` });
      mark.style.left = `${(100 * Math.log(tick / LOWEST)) / Math.log(top / LOWEST)}%`;
      return mark;
    }));
  }

  // Links: #run=…&task=…&doc=…&step=…&layer=…, and with=… for the run beside it

  let timer;

  function remember() {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (chosen.doc === null) return;
      const link = new URLSearchParams({ run: report.runs[chosen.run].label });
      if (chosen.with !== null) link.set("with", report.runs[chosen.with].label);
      for (const key of ["task", "doc", "step"]) link.set(key, chosen[key]);
      if (chosen.layer !== null) link.set("layer", chosen.layer);
      history.replaceState(null, "", `#${link}`);
    }, 150);
  }

  async function follow() {
    const link = new URLSearchParams(location.hash.slice(1));
    const unknown = [];
    const runNamed = (key) => {
      const run = report.runs.findIndex(({ label }) => label === link.get(key));
      if (run < 0 && link.has(key)) unknown.push(`${key} “${link.get(key)}”`);
      return run < 0 ? null : run;
    };
    const whole = (key) => (/^\d+$/.test(link.get(key) ?? "") ? Number(link.get(key)) : null);
    chosen.run = runNamed("run") ?? 0;
    chosen.with = runNamed("with");
    const task = link.get("task");
    if (task !== null && !report.tasks.includes(task)) unknown.push(`task “${task}”`);
    chosen.task = report.tasks.includes(task) ? task : report.tasks.find((name) => report.runs[chosen.run].tasks[name]) ?? report.tasks[0];
    chosen.step = whole("step") ?? 0;
    chosen.layer = whole("layer");
    chosen.doc = whole("doc");
    if (link.has("doc")) for (const id of ["count", "outcome"]) $(id).value = "";
    const wanted = chosen.doc;
    await chooseTask();
    if (link.has("doc") && chosen.doc !== wanted) unknown.push(`document “${link.get("doc")}”`);
    if (unknown.length) $("status").textContent = `The link names ${unknown.join(", ")}, which this report does not have.`;
    if (link.has("run")) $("explorer").scrollIntoView();
  }

  // Controls

  const showing = (action) => () => {
    Promise.resolve(action()).catch((error) => {
      $("status").textContent = error.message;
    });
  };
  const on = (id, event, action) => $(id).addEventListener(event, showing(action));

  function listen() {
    on("task", "change", () => { chosen.task = $("task").value; return chooseTask(); });
    on("run", "change", () => { chosen.run = Number($("run").value); return chooseTask(); });
    on("with", "change", () => { chosen.with = $("with").value === "" ? null : Number($("with").value); return showDocument(); });
    for (const id of ["count", "outcome", "order"]) on(id, "change", filterDocuments);
    on("documents", "change", () => { chosen.doc = Number($("documents").value); return showDocument(); });
    on("step", "input", () => { chosen.step = Number($("step").value); draw(); });
    on("layer", "input", () => { chosen.layer = leading().maps.layers[Number($("layer").value)][0]; draw(); });
    for (const id of ["strength", "dots", "scale"]) on(id, "input", draw);
    on("view", "change", () => { chosen.view = Number($("view").value); draw(); });
    window.addEventListener("hashchange", () => {
      if (location.hash.includes("=")) showing(follow)();
    });
    for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  }

  showing(async () => {
    report = await load("runs");
    listen();
    await follow();
  })();
})();
