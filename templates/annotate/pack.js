// A pack of tasks in one file: shows them, keeps what is said in the browser, and saves it as a small file. Sends nothing anywhere.
// Texts are put in as text, never as markup.
"use strict";
(async () => {
  // Asked while the page is still coming in, Chromium on a busy machine may give it a store that is nobody's, where votes are lost: it is asked
  // when the page has been drawn.
  await new Promise((drawn) => { requestAnimationFrame(() => requestAnimationFrame(drawn)); setTimeout(drawn, 1000); });
  const { signed, signature, tasks, words } = JSON.parse(document.getElementById("data").textContent);
  const KEY = `pairwright-${signature.slice(0, 16)}`;
  const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const page = kept(`${KEY}-`);
  const browser = kept(`${KEY}-vote-`);
  // What the browser does not keep stays while the page is open.
  const here = new Map();
  const votes = () => [...browser.all(), ...here.values()].sort((one, other) => one.order - other.order);
  const place = document.getElementById("task");
  const count = document.getElementById("count");
  const name = document.getElementById("name");
  name.value = page.get("name") ?? "";
  name.addEventListener("input", () => page.put("name", name.value));
  // The pack may be copied, and its copies voted on by several people: this one has a number from the first file on that it gave.
  let copy = null;
  function copied() {
    copy = page.get("copy") ?? copy ?? hex(crypto.getRandomValues(new Uint8Array(8)));
    page.put("copy", copy);
    return copy;
  }

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    Object.entries(attributes).forEach(([key, value]) => { if (value !== null) element.setAttribute(key, value); });
    element.append(...children);
    return element;
  }
  const letter = (index) => "ABCDEF"[index];
  const text = (content, lang) => make("div", { class: "text", dir: "auto", lang }, content);

  function vote(task, fields) {
    const made = { item: task.item, at: Math.floor(Date.now() / 1000), fields, order: 1 + Math.max(0, ...votes().map((one) => one.order)) };
    if (!browser.put(task.item, made)) here.set(task.item, made);
    show();
  }
  function button(task, value, label, quiet, key) {
    const made = make("button", { class: quiet ? "quiet" : null, "data-key": key || null }, label);
    made.addEventListener("click", () => vote(task, { choice: value }));
    return made;
  }
  function rank(task) {
    const selects = task.answers.map((_, index) => {
      const select = make("select", {}, ...task.answers.map((__, at) => make("option", {}, String(at + 1))));
      select.value = String(task.answers.length);
      return { select, label: make("label", {}, `${words.answer} ${letter(index)} `, select) };
    });
    const send = make("button", {}, words.send);
    send.addEventListener("click", () => vote(task, Object.fromEntries([["choice", "ranking"], ...selects.map(({ select }, index) => [`rank-${index}`, select.value])])));
    return make("fieldset", {}, make("legend", {}, words.rank), make("p", {}, words.rank_help), ...selects.map(({ label }) => label), send);
  }
  function edit(task) {
    const forms = task.answers.map((answer, index) => {
      const area = make("textarea", { rows: "6", dir: "auto", lang: task.lang });
      area.value = answer;
      const send = make("button", {}, words.send);
      send.addEventListener("click", () => { if (area.value.trim() && !task.answers.includes(area.value)) vote(task, { choice: `edit-${index}`, text: area.value }); });
      return make("div", {}, make("label", {}, `${words.answer} ${letter(index)}`, area), send);
    });
    return make("details", {}, make("summary", {}, words.edit), make("p", {}, words.edit_help), ...forms);
  }
  function flag(task) {
    const kinds = make("select", {}, ...["wrong_language", "offensive", "broken", "other"].map((kind) => make("option", { value: kind }, words[kind])));
    const note = make("textarea", { rows: "2", maxlength: "2000", dir: "auto" });
    const send = make("button", {}, words.send);
    send.addEventListener("click", () => vote(task, { choice: "flag", flag: kinds.value, where: "all", note: note.value }));
    return make("details", {}, make("summary", {}, words.flag), make("label", {}, `${words.flag} `, kinds), make("label", {}, words.note, note), send);
  }

  let shown = null;
  function show() {
    const done = new Set(votes().map((one) => one.item));
    const task = tasks.find((one) => !done.has(one.item));
    count.textContent = `${done.size} / ${tasks.length}`;
    // What somebody is about to write stays.
    if (place.hasChildNodes() && shown === task) return;
    shown = task;
    place.replaceChildren();
    if (!task) { place.append(make("p", { class: "notice" }, `${words.done} ${words.export_votes}.`)); return; }
    const cards = task.answers.map((answer, index) => make("section", { class: "answer" }, make("h2", {}, `${words.answer} ${letter(index)}`), text(answer, task.lang)));
    place.append(make("section", { class: "prompt" }, make("h1", {}, words.question), text(task.prompt, task.lang)), make("div", { class: "answers" }, ...cards));
    const bar = make("div", { class: "bar", role: "group", "aria-label": words.title });
    if (task.answers.length === 2) {
      bar.append(button(task, "better-0", `A ${words.better}`, false, "1"), button(task, "same", words.same, false, "="), button(task, "better-1", `B ${words.better}`, false, "2"));
    } else place.append(rank(task));
    bar.append(button(task, "both_bad", task.answers.length === 2 ? words.both_bad : words.all_bad, true, "0"), button(task, "skip", words.skip, true, " "));
    place.append(bar, edit(task), flag(task));
    window.scrollTo(0, 0);
  }

  document.getElementById("undo").addEventListener("click", () => {
    const last = votes().pop();
    if (!last) return;
    browser.drop(last.item);
    here.delete(last.item);
    show();
  });
  document.getElementById("save").addEventListener("click", () => {
    const said = votes().map(({ item, at, fields }) => ({ item, at, fields }));
    const copy = copied();
    const content = JSON.stringify({ signed, signature, copy, name: name.value, votes: said });
    const link = make("a", { href: URL.createObjectURL(new Blob([content], { type: "application/json" })), download: `votes-${copy}.json` });
    document.body.append(link);
    link.click();
    link.remove();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, summary, button")) return;
    const found = [...place.querySelectorAll("button[data-key]")].find((one) => one.dataset.key === event.key);
    if (found) { event.preventDefault(); found.click(); }
  });
  // Another tab of the pack has said something.
  window.addEventListener("storage", show);
  show();
})();
