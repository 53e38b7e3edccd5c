"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const pictures = Array.from(document.querySelectorAll("script.picture"), (script) => JSON.parse(script.textContent));
  const classOf = new Map(facts.classes.map((item) => [item.label, item]));
  const layerOf = new Map(facts.layers.map((layer) => [layer.key, layer]));
  const masks = facts.layers.filter((layer) => layer.kind === "mask");
  const usual = masks.length ? masks[masks.length - 1].key : "";
  const AT_ONCE = 60;
  const RANKED = 8;

  function made(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function option(select, value, text) {
    const element = made("option", "", text);
    element.value = value;
    select.append(element);
  }

  function nameOf(label) {
    return classOf.has(label) ? classOf.get(label).name : String(label);
  }

  function image(source, className) {
    const element = made("img", className);
    element.src = source;
    element.alt = "";
    element.decoding = "async";
    return element;
  }

  function overlay(picture, key) {
    const source = picture.layers[key];
    return source ? image(source, layerOf.get(key).kind === "heat" ? "over heat" : "over") : null;
  }

  function stackOf(picture) {
    const stack = made("span", "stack");
    stack.style.aspectRatio = `${picture.width} / ${picture.height}`;
    stack.style.display = "block";
    if (picture.picture) stack.append(image(picture.picture, "picture"));
    return stack;
  }

  function stateOf(picture) {
    if (picture.status === "failed" || picture.status === "upstream") return `${picture.status}: ${picture.why}`;
    if (picture.status === "dropped") return `dropped: ${picture.why}`;
    return "";
  }

  function described(picture) {
    const classes = picture.classes.map(nameOf).join(", ") || "no class";
    return [picture.id, classes, stateOf(picture), picture.missing].filter(Boolean).join("; ");
  }

  function tile(picture, key) {
    const item = made("li", "tile");
    const button = made("button");
    button.type = "button";
    button.setAttribute("aria-label", `Open ${described(picture)}`);
    const frame = made("span", "frame");
    const stack = stackOf(picture);
    stack.classList.add(picture.width * 3 >= picture.height * 4 ? "wide" : "tall");
    const over = overlay(picture, key);
    if (over) stack.append(over);
    if (!picture.picture) stack.append(made("span", "note", picture.missing));
    frame.append(stack);
    button.append(frame);
    button.addEventListener("click", () => open(picture));
    item.append(button, made("p", "name", picture.id), legendLine(picture));
    if (stateOf(picture)) item.append(made("p", "state", stateOf(picture)));
    item.dataset.id = picture.id;
    return item;
  }

  function legendLine(picture) {
    const line = made("p");
    for (const label of picture.classes.slice(0, 4)) {
      const swatch = made("span", "swatch");
      swatch.style.background = classOf.get(label).colour;
      line.append(swatch, `${nameOf(label)} `);
    }
    const score = picture.measures[facts.rankedBy];
    if (score !== undefined) line.append(` ${score.toFixed(3)}`);
    return line;
  }

  // ---- two layers, one on each side of an edge

  function comparer() {
    const figure = made("div", "compare");
    const holder = made("div");
    const range = made("input");
    range.type = "range";
    range.min = 0;
    range.max = 100;
    range.setAttribute("aria-label", "Position of the edge between before and after, in percent");
    const row = made("p", "row");
    const [left, right] = [made("span"), made("span")];
    row.append(left, right);
    figure.append(holder, range, row);
    let parts = null;

    function move() {
      const at = Number(range.value);
      if (parts.before) parts.before.style.clipPath = `inset(0 ${100 - at}% 0 0)`;
      if (parts.after) parts.after.style.clipPath = `inset(0 0 0 ${at}%)`;
      parts.edge.style.left = `${at}%`;
    }

    function show(picture, before, after, most) {
      const stack = stackOf(picture);
      stack.style.maxWidth = `calc(${most} * ${picture.width / picture.height})`;
      parts = { before: overlay(picture, before), after: overlay(picture, after), edge: made("span", "edge") };
      for (const part of [parts.before, parts.after]) if (part) stack.append(part);
      stack.append(parts.edge);
      if (picture.missing) stack.append(made("span", "note", picture.missing));
      const drag = (event) => {
        if (event.type === "pointermove" && !event.buttons) return;
        const box = stack.getBoundingClientRect();
        range.value = (100 * (event.clientX - box.left)) / box.width;
        move();
        event.preventDefault();
      };
      stack.addEventListener("pointerdown", drag);
      stack.addEventListener("pointermove", drag);
      holder.replaceChildren(stack);
      const caption = (key) => (layerOf.has(key) ? layerOf.get(key).name + (picture.layers[key] ? "" : " (none)") : "nothing");
      left.textContent = `left: ${caption(before)}`;
      right.textContent = `right: ${caption(after)}`;
      range.value = 50;
      move();
    }

    range.addEventListener("input", move);
    return { element: figure, show };
  }

  // ---- stages that change masks or maps

  function changeCard(change) {
    const card = made("div", "card");
    const having = (before) =>
      pictures.filter(({ layers }) => layers[before] && layers[change.after] && layers[before] !== layers[change.after]);
    const changes = having(change.before);
    const before = changes.length ? change.before : change.soft;
    const changed = changes.length ? changes : having(before);
    card.append(made("h3", "", `${change.stage}: ${layerOf.get(before).name} → ${layerOf.get(change.after).name}`));
    if (!changes.length) card.append(made("p", "soft", "It changed no label of the pictures that are shown."));
    if (!changed.length) return card;
    const agreement = (picture) => picture.measures.agreement ?? 1;
    changed.sort((one, other) => agreement(one) - agreement(other));
    const view = comparer();
    const [back, on, caption] = [made("button", "", "Previous"), made("button", "", "Next"), made("span", "soft")];
    let at = 0;
    const go = (by) => {
      at = (at + by + changed.length) % changed.length;
      view.show(changed[at], before, change.after, "340px");
      caption.textContent = `${changed[at].id} (${at + 1} of ${changed.length}${change.stage === "refine" && changes.length ? ", most changed first" : ""})`;
    };
    back.type = on.type = "button";
    back.addEventListener("click", () => go(-1));
    on.addEventListener("click", () => go(1));
    const row = made("p", "row");
    row.append(back, on, caption);
    const bar = made("div", "compare");
    bar.append(row);
    card.append(view.element, bar);
    go(0);
    return card;
  }

  const comparers = document.getElementById("comparers");
  if (comparers) comparers.append(...facts.changes.map(changeCard));

  // ---- one picture at a time

  const viewer = document.getElementById("viewer");
  let listed = pictures;
  let opened = 0;

  function open(picture) {
    opened = listed.indexOf(picture);
    if (opened < 0) {
      listed = pictures;
      opened = pictures.indexOf(picture);
    }
    fill();
    if (!viewer.open) viewer.showModal();
  }

  function fill() {
    const picture = listed[opened];
    document.getElementById("viewer-h").textContent = picture.id;
    const body = document.getElementById("viewer-body");
    const view = comparer();
    const present = facts.layers.filter((layer) => picture.layers[layer.key]);
    const row = made("div", "compare");
    const line = made("p", "row");
    const selects = ["left", "right"].map((side) => {
      const label = made("label", "", `${side} `);
      const select = made("select");
      option(select, "", "picture alone");
      for (const layer of present) option(select, layer.key, layer.name);
      label.append(select);
      line.append(label);
      return select;
    });
    selects[1].value = picture.layers[usual] ? usual : "";
    const change = facts.changes[facts.changes.length - 1];
    selects[0].value = change && picture.layers[change.before] ? change.before : "";
    const draw = () => view.show(picture, selects[0].value, selects[1].value, "58vh");
    selects.forEach((select) => select.addEventListener("change", draw));
    row.append(line);
    const notes = [described(picture), ...picture.faults].map((text) => made("p", "soft", text));
    const measures = made("dl", "measures");
    for (const [name, value] of Object.entries(picture.measures)) {
      const pair = made("div");
      pair.append(made("dt", "", name.replaceAll("_", " ")), made("dd", "", String(value)));
      measures.append(pair);
    }
    body.replaceChildren(view.element, row, ...notes, measures);
    draw();
  }

  viewer.querySelector("[data-close]").addEventListener("click", () => viewer.close());
  for (const button of viewer.querySelectorAll("[data-go]")) {
    button.addEventListener("click", () => {
      opened = (opened + Number(button.dataset.go) + listed.length) % listed.length;
      fill();
    });
  }

  // ---- best and worst

  for (const name of ["worst", "best"]) {
    const list = document.getElementById(name);
    if (list) list.append(...facts[name].slice(0, Math.min(RANKED, Math.ceil(pictures.length / 2))).map((place) => tile(pictures[place], usual)));
  }

  // ---- the gallery

  const form = document.getElementById("filters");
  if (!form) return;
  const [tiles, more, tally] = ["tiles", "more", "tally"].map((id) => document.getElementById(id));
  const values = (name) => [...new Set(pictures.flatMap((picture) => picture[name]))].sort();
  for (const { label, name } of facts.classes) if (pictures.some((picture) => picture.classes.includes(label))) option(form.elements.label, label, name);
  for (const status of values("status")) option(form.elements.status, status, status);
  for (const source of values("sources")) option(form.elements.source, source, source);
  for (const name of facts.measures) {
    if (!pictures.some((picture) => name in picture.measures)) continue;
    option(form.elements.sort, `-${name}`, `${name.replaceAll("_", " ")}, high first`);
    option(form.elements.sort, `+${name}`, `${name.replaceAll("_", " ")}, low first`);
  }
  for (const layer of facts.layers) option(form.elements.layer, layer.key, layer.name);
  option(form.elements.layer, "", "picture alone");
  form.elements.layer.value = usual;
  document.getElementById("legend").open = facts.classes.length <= 24;
  for (const { name, colour } of facts.classes) {
    const [item, swatch] = [made("li"), made("span", "swatch")];
    swatch.style.background = colour;
    item.append(swatch, name);
    document.querySelector("#legend ul").append(item);
  }

  function chosen() {
    const { text, label, status, source, sort } = form.elements;
    const wanted = text.value.trim().toLowerCase();
    const matching = pictures.filter(
      (picture) =>
        picture.id.toLowerCase().includes(wanted) &&
        (!label.value || picture.classes.includes(Number(label.value))) &&
        (!status.value || picture.status === status.value) &&
        (!source.value || picture.sources.includes(source.value)),
    );
    if (!sort.value) return matching;
    const [sign, name] = [sort.value[0] === "-" ? -1 : 1, sort.value.slice(1)];
    const value = (picture) => picture.measures[name] ?? sign * Infinity; // pictures without it come last
    return matching.sort((one, other) => (value(one) === value(other) ? 0 : sign * (value(one) - value(other))));
  }

  function grow() {
    const next = listed.slice(tiles.children.length, tiles.children.length + AT_ONCE);
    tiles.append(...next.map((picture) => tile(picture, form.elements.layer.value)));
    more.hidden = tiles.children.length >= listed.length;
    more.textContent = `More (${listed.length - tiles.children.length} left)`;
  }

  function refresh() {
    listed = chosen();
    tiles.replaceChildren();
    tally.textContent = listed.length === pictures.length ? `${listed.length} pictures` : `${listed.length} of ${pictures.length} pictures`;
    grow();
  }

  form.addEventListener("input", refresh);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", grow);
  refresh();
})();
