// What a browser with JavaScript adds to pages that work without: keys, tasks fetched ahead, and votes that wait for a connection. Tasks and
// votes are kept, so that a page which is loaded again without a connection (worker.js) goes on where it was.
// Knows the forms of the page; every vote has its token from the server, so that one which is sent twice counts once.
"use strict";
(() => {
  const task = document.getElementById("task");
  const words = document.body.dataset;
  const status = document.getElementById("status");
  const say = (text) => { status.textContent = text; };
  // Votes that are not sent yet, under names that have the order in which they were given.
  const votes = kept("pairwright-vote-");
  const mine = () => votes.all().filter((one) => one.who === words.who);
  const keep = (vote) => {
    const at = Math.max(Date.now(), ...votes.all().map((one) => one.at + 1));
    const id = `${String(at).padStart(15, "0")}-${Math.random()}`;
    return votes.put(id, { ...vote, id, at, who: words.who });
  };
  const page = kept("pairwright-");
  const last = page.get("tasks");
  const before = last && last.who === words.who ? last : {};
  const isWaiting = (one) => mine().some((other) => other.token === one.token);
  let current = task && task.dataset.live ? { token: task.dataset.live, html: task.innerHTML } : null;
  // Tokens that were answered here: a page that was kept may show such a task again.
  const done = new Set(before.done || []);
  const isDone = (one) => done.has(one.token) || isWaiting(one);
  let ahead = (before.ahead || []).filter((one) => !isDone(one) && (!current || one.token !== current.token));
  // Tasks whose votes are not sent yet, the latest last: what an undo takes back here.
  const shown = (before.shown || []).filter(isWaiting);
  const remember = () => {
    // If it is not kept, a page that is loaded again starts anew.
    page.put("tasks", { who: words.who, ahead: current ? [current, ...ahead] : ahead, shown: shown.slice(-8), done: [...done].slice(-200) });
  };
  let busy = null;

  const waiting = () => { const count = mine().length; say(count ? `${words.offline} ${count}` : ""); };

  async function send(one) {
    const headers = { "Content-Type": "application/x-www-form-urlencoded", "X-Pairwright": "1" };
    if (navigator.onLine === false) throw new Error("offline");
    // From here on the server may have it, whatever comes back: then it alone can take it back.
    votes.put(one.id, { ...one, tried: true });
    const answer = await fetch(one.path, { method: "POST", body: one.body, headers, redirect: "error" });
    // Too many at once, or a server that is not well: later.
    if (answer.status === 429 || answer.status >= 500) throw new Error(String(answer.status));
    if (answer.status === 401 || answer.status === 403) { location.assign("/"); throw new Error("session"); }
    const said = await answer.json();
    votes.drop(one.id);
    if (said.taken === "stale") say(words.stale);
    if (said.taken === "wrong") { done.delete(one.token); say(`${words.wrong} ${said.why}`); }
  }

  async function flushAll() {
    for (let list = mine(); list.length; list = mine()) await send(list[0]);
  }
  function flush() {
    const lock = navigator.locks ? (work) => navigator.locks.request("pairwright-votes", work) : (work) => work();
    busy = busy || lock(flushAll).then(() => true, () => { waiting(); return false; }).finally(() => { busy = null; });
    return busy;
  }

  async function refill() {
    try {
      const answer = await fetch("/tasks?n=6", { headers: { "X-Pairwright": "1" } });
      if (!answer.ok) return false;
      const { tasks } = await answer.json();
      const sent = new Set(mine().map((one) => one.token));
      // What the server offers is open, whatever is remembered here.
      tasks.forEach((one) => done.delete(one.token));
      ahead = tasks.filter((one) => !sent.has(one.token) && (!current || one.token !== current.token));
      remember();
      return true;
    } catch { return false; }
  }

  function show(next) {
    current = next;
    task.dataset.live = next ? next.token : "";
    if (next) task.innerHTML = next.html;
    else task.textContent = words.wait;
    // A task that was fetched before the first vote does not offer to take it back.
    const back = task.querySelector("[data-key=z]");
    if (back && shown.length) back.hidden = false;
    remember();
    window.scrollTo(0, 0);
    document.getElementById("main").focus({ preventScroll: true });
  }

  async function advance() {
    if (ahead.length) {
      show(ahead.shift());
      const sent = await flush();
      if (sent && ahead.length < 3) await refill();
      return;
    }
    show(null);
    // Without a connection there is nothing further to show; what was said is kept and sent later.
    if (await flush()) location.assign("/");
  }

  function voted(form, submitter) {
    const fields = new FormData(form);
    if (submitter && submitter.name) fields.set(submitter.name, submitter.value);
    return keep({ token: current.token, path: form.getAttribute("action"), body: new URLSearchParams(fields).toString() });
  }

  async function undo(form) {
    const last = shown.pop();
    const unsent = last && mine().find((one) => one.token === last.token);
    if (unsent && !unsent.tried) {
      votes.drop(unsent.id);
      done.delete(last.token);
      if (current) ahead.unshift(current);
      show(last);
      return waiting();
    }
    const fields = new URLSearchParams(new FormData(form));
    if (last) fields.set("event", last.token);
    keep({ token: "", path: "/undo", body: fields.toString() });
    if (await flush()) location.assign("/");
  }

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.getAttribute("action") === "/leave") page.drop("tasks");
    if (!task || !current || !form.matches("#task .live")) return;
    if (form.id === "undo") { event.preventDefault(); undo(form); return; }
    // Where nothing can be kept, the form is sent as it is.
    if (!voted(form, event.submitter)) return;
    event.preventDefault();
    shown.push(current);
    done.add(current.token);
    advance();
  });

  // Answers of which there are more than two: numbers give them places, best first; so does dragging.
  let places = 0;
  const ranks = () => [...task.querySelectorAll("#rank select")];
  function rank(index) {
    const all = ranks();
    if (index >= all.length) return false;
    if (!places) all.forEach((one) => { one.value = String(all.length); });
    places = Math.min(places + 1, all.length);
    all[index].value = String(places);
    if (places === all.length) places = 0;
    return true;
  }
  function ready() {
    places = 0;
    task.querySelectorAll(".many .answer").forEach((card) => { card.draggable = true; });
  }
  if (task) {
    let dragged = null;
    const card = (event) => event.target.closest && event.target.closest(".many .answer");
    task.addEventListener("dragstart", (event) => { dragged = card(event); });
    task.addEventListener("dragover", (event) => { if (dragged && card(event)) event.preventDefault(); });
    task.addEventListener("drop", (event) => {
      const target = card(event);
      if (!dragged || !target || target === dragged) return;
      event.preventDefault();
      const all = [...task.querySelectorAll(".many .answer")];
      target[all.indexOf(dragged) < all.indexOf(target) ? "after" : "before"](dragged);
      const selects = ranks();
      [...task.querySelectorAll(".many .answer")].forEach((one, at) => { selects[Number(one.dataset.index)].value = String(at + 1); });
      dragged = null;
    });
    new MutationObserver(ready).observe(task, { childList: true });
    ready();
  }

  document.addEventListener("keydown", (event) => {
    if (!task || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const at = event.target;
    if (at.closest && at.closest("input:not([type=radio]), select, textarea, button, a, summary") && event.key !== "Escape") {
      // A focused button keeps space and Enter; other keys still work on it.
      if (!at.closest("button, a, summary") || [" ", "Enter"].includes(event.key)) return;
    }
    if (event.key === "?") { toggle("keys"); return event.preventDefault(); }
    if (event.key === "e" || event.key === "f") { toggle(event.key === "e" ? "edit" : "flag", true); return event.preventDefault(); }
    if (task.querySelector("#rank") && /^[1-9]$/.test(event.key)) { if (rank(Number(event.key) - 1)) event.preventDefault(); return; }
    const button = [...task.querySelectorAll("button[data-key]:not([hidden])")].find((one) => one.dataset.key === event.key);
    if (button) { event.preventDefault(); button.click(); }
  });
  function toggle(id, enter) {
    const box = document.getElementById(id);
    if (!box) return;
    box.open = !box.open;
    if (box.open && enter) { box.scrollIntoView({ block: "nearest" }); box.querySelector("textarea, select").focus(); }
  }

  window.addEventListener("online", () => flush().then((sent) => { if (sent) { waiting(); if (!current && task) location.assign("/"); else refill(); } }));
  setInterval(() => { if (mine().length) flush().then((sent) => { if (sent) waiting(); }); }, 5000);
  if (task && navigator.serviceWorker) navigator.serviceWorker.register("/worker.js").catch(() => {});
  // Elsewhere a page that is left without a connection does not come back before there is one: browsers ask first.
  else window.addEventListener("beforeunload", (event) => { if (task && navigator.onLine === false) event.preventDefault(); });
  // A page that was kept, or one from before the last votes were sent, goes on with the next task.
  if (current && isDone(current)) show(ahead.shift() || null);
  if (words.who) flush().then(async (sent) => {
    if (!sent || !task || !task.hasAttribute("data-live")) return;
    const isThere = await refill();
    if (current || !isThere) return;
    if (ahead.length) show(ahead.shift());
    else location.assign("/");
  });
  window.addEventListener("pageshow", (event) => { if (event.persisted && task) location.reload(); });
})();
