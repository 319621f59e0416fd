"use strict";
// A rater's sheet: shows one caption at a time, keeps the answers in the browser as they are given, and
// writes them as CSV. Texts of strangers are only ever set as textContent.
(() => {
  const sheet = JSON.parse(document.getElementById("sheet").textContent);
  const rows = sheet.rows;
  const questions = sheet.questions; // name -> answers, from the best to the worst
  const names = Object.keys(questions);
  const $ = (id) => document.getElementById(id);
  const CANNOT = sheet.cannot_judge;
  const LONGEST_LOOK = 120; // seconds: whoever looks longer is having a break

  // ---- what is kept: one entry per row. So two windows with one sheet keep each other's answers.
  const place = `captioner ${sheet.sample} ${sheet.file} `;
  let keeps = true;
  const read = (name) => {
    try { return JSON.parse(localStorage.getItem(place + name)); } catch { return null; }
  };
  const write = (name, value) => {
    try { localStorage.setItem(place + name, JSON.stringify(value)); } catch { keeps = false; }
    $("not-kept").hidden = keeps;
  };
  const answers = new Map(rows.map((row) => [row.item_id, read(row.item_id) || {}]));
  const answerOf = (row) => answers.get(row.item_id);
  const judged = (row) => names.every((name) => answerOf(row)[name]);
  const keep = (row, changes) => {
    const answer = Object.assign(answerOf(row), changes);
    for (const name of Object.keys(answer)) {
      if (answer[name] === null || answer[name] === "") delete answer[name];
    }
    write(row.item_id, answer);
  };

  // ---- what is shown
  let at = Math.min(rows.length - 1, Math.max(0, read("at") || 0));
  let since = performance.now();
  const source = (i) => {
    const data = $(`picture-${i}`);
    return data ? `data:image/jpeg;base64,${data.textContent}` : "";
  };

  const noteTime = () => {
    const seconds = Math.min(LONGEST_LOOK, (performance.now() - since) / 1000);
    since = performance.now();
    const answer = answerOf(rows[at]);
    if (!document.hidden && (answer.answered_at || answer.comment)) {
      keep(rows[at], { seconds: Math.round(10 * ((answer.seconds || 0) + seconds)) / 10 });
    }
  };

  const show = (i) => {
    at = Math.min(rows.length - 1, Math.max(0, i));
    since = performance.now();
    const row = rows[at];
    write("at", at);
    $("number").textContent = `${at + 1} of ${rows.length}`;
    row.captions.forEach((caption, n) => { $(`caption-${n}`).textContent = caption; });
    const picture = source(at);
    $("picture").hidden = !picture;
    $("picture").src = picture || "data:,";
    $("picture").alt = `Picture ${at + 1} of ${rows.length}`;
    $("no-picture").hidden = Boolean(picture);
    $("no-picture").textContent =
      picture ? "" : `There is no picture to show: ${row.missing}. Please choose “cannot judge”.`;
    if (source(at + 1)) new Image().src = source(at + 1); // so that it is decoded in time
    draw();
  };

  const draw = () => {
    const answer = answerOf(rows[at]);
    for (const input of document.querySelectorAll("input[type=radio]")) {
      input.checked = answer[input.name] === input.value;
    }
    $("cannot").checked = names.some((name) => answer[name] === CANNOT);
    if ($("comment").value !== (answer.comment || "")) $("comment").value = answer.comment || "";
    const done = rows.filter(judged).length;
    $("progress").value = done;
    $("count").textContent = `${done} of ${rows.length} judged`;
    $("all-done").hidden = done < rows.length;
    $("back").disabled = at === 0;
    $("next").disabled = at === rows.length - 1;
  };

  const move = (i) => { noteTime(); show(i); };
  const nextOpen = () => {
    const after = rows.findIndex((row, i) => i > at && !judged(row));
    const first = rows.findIndex((row) => !judged(row));
    if (after >= 0 || first >= 0) move(after >= 0 ? after : first);
  };

  const choose = (name, value) => {
    const row = rows[at], before = judged(row);
    const changes = { [name]: value, answered_at: new Date().toISOString() };
    for (const other of names) if (answerOf(row)[other] === CANNOT && other !== name) changes[other] = null;
    keep(row, changes);
    noteTime();
    draw();
    if (!before && judged(row) && $("by-itself").checked && at < rows.length - 1) show(at + 1);
  };

  const before = new Map(); // the answers before "cannot judge", in case it is unchecked again
  const cannot = (on) => {
    const row = rows[at], said = answerOf(row);
    if (on) before.set(row.item_id, Object.fromEntries(names.map((name) => [name, said[name] || null])));
    const back = before.get(row.item_id) || {};
    const changes = { answered_at: new Date().toISOString() };
    for (const name of names) changes[name] = on ? CANNOT : back[name] || null;
    keep(row, changes);
    noteTime();
    draw();
  };

  // ---- the CSV: a cell that begins like a formula gets an apostrophe, which captioner removes again
  const formula = new RegExp(sheet.formula, "g");
  const cell = (value) => `"${String(value ?? "").replace(formula, "$1'$2").replaceAll('"', '""')}"`;
  const csv = () => {
    const lines = rows.map((row) => {
      const answer = answerOf(row);
      const { sample, rater } = sheet;
      const known = { sample, rater, number: row.number, item_id: row.item_id, ...answer };
      sheet.caption_columns.forEach((name, n) => { known[name] = row.captions[n]; });
      return sheet.columns.map((name) => cell(known[name])).join(",");
    });
    return "\ufeff" + [sheet.columns.map(cell).join(","), ...lines, ""].join("\r\n");
  };
  const download = () => {
    noteTime();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
    link.download = sheet.file;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    $("said").textContent = `${sheet.file} is in your downloads. Send it to the person who asked you. `
      + "You can go on, and download it again.";
    $("said").hidden = false;
  };

  // ---- buttons and keys
  for (const input of document.querySelectorAll("input[type=radio]")) {
    input.addEventListener("change", () => choose(input.name, input.value));
  }
  $("cannot").addEventListener("change", () => cannot($("cannot").checked));
  $("comment").addEventListener("input", () => {
    const answered_at = answerOf(rows[at]).answered_at || new Date().toISOString();
    keep(rows[at], { comment: $("comment").value, answered_at });
  });
  $("back").addEventListener("click", () => move(at - 1));
  $("next").addEventListener("click", () => move(at + 1));
  $("open").addEventListener("click", nextOpen);
  $("download").addEventListener("click", download);
  $("download-all").addEventListener("click", download);
  $("guide-open").addEventListener("click", () => $("guide").showModal());
  $("guide-close").addEventListener("click", () => $("guide").close());
  $("by-itself").checked = read("by itself") === true;
  $("by-itself").addEventListener("change", () => write("by itself", $("by-itself").checked));
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());

  const keys = {
    ArrowLeft: () => move(at - 1),
    ArrowRight: () => move(at + 1),
    n: nextOpen,
    c: () => $("comment").focus(),
    d: download,
    g: () => $("guide").showModal(),
  };
  keys["?"] = keys.g;
  keys["0"] = () => cannot(!$("cannot").checked);
  const choices = names.flatMap((name) => questions[name].map((value) => [name, value]));
  choices.forEach(([name, value], i) => { keys[String(i + 1)] = () => choose(name, value); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if ($("guide").open) {
      if (event.key === "g" || event.key === "?") { $("guide").close(); event.preventDefault(); }
      return; // Escape closes it by itself
    }
    if (event.target === $("comment")) {
      if (event.key === "Escape") $("comment").blur();
      return;
    }
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key; // Caps Lock
    const act = keys[key] || (key === "Enter" && !event.target.closest("button, a") ? keys.ArrowRight : null);
    if (!act) return;
    event.preventDefault(); // arrows would move between the answers of a question
    act();
  });

  document.addEventListener("visibilitychange", () => { since = performance.now(); });
  window.addEventListener("pagehide", noteTime);
  window.addEventListener("beforeunload", (event) => { if (!keeps) event.preventDefault(); });
  window.addEventListener("storage", (event) => { // answered in another window
    const id = event.key && event.key.startsWith(place) ? event.key.slice(place.length) : "";
    if (answers.has(id)) { answers.set(id, read(id) || {}); draw(); }
  });
  show(at);
})();
