// People voting in Chromium: keys, clicks, undo, edit, flag, rank, reload, back, two tabs, offline and online again. After each step the store
// must hold exactly what was done. Fails also where a page logs an error, asks another machine, scrolls sideways or breaks a rule of axe-core.
// Usage: node check_annotate.mjs [--shots FOLDER] PROGRAM RUN AXE PACK
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Browser } from "./browser.mjs";

const files = process.argv.slice(2);
const shots = files[0] === "--shots" ? files.splice(0, 2)[1] : null;
const [program, run, axePath, pack] = files;
const axe = readFileSync(axePath, "utf8");
const problems = [];
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function serve(...flags) {
  // Of two ports the first is meant.
  const port = flags.includes("--port") ? [] : ["--port", "0"];
  const server = spawn(program, ["annotate", "serve", run, ...port, "--overlap", "50", "--repeats", "0", "--planted", "0", ...flags], { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  server.stderr.setEncoding("utf8").on("data", (text) => { said += text; });
  for (let waited = 0; !/^admin .*$/m.test(said); waited += 50) {
    if (waited > 30000 || server.exitCode !== null) throw new Error(`no server: ${said}`);
    await pause(50);
  }
  const admin = said.match(/^admin +(\S+)/m)[1];
  const entered = await fetch(admin, { redirect: "manual" });
  const cookie = entered.headers.getSetCookie()[0].split(";")[0];
  return {
    url: said.match(/^people +(\S+)/m)[1], admin,
    events: async () => {
      for (;;) {
        const answer = await fetch(new URL("/admin/votes.jsonl", admin), { headers: { cookie } });
        if (answer.ok) return (await answer.text()).split("\n").filter(Boolean).map((line) => JSON.parse(line));
        // Asked too often: the server keeps its measure here too.
        await pause(500);
      }
    },
    stop: async () => { server.kill("SIGTERM"); const [code] = await once(server, "exit"); if (code !== 0) problems.push(`the server ended with ${code}`); },
  };
}

class Page {
  static async open(browser, context, name, view, language, server) {
    const { targetId } = await browser.call("Target.createTarget", { url: "about:blank", browserContextId: context });
    const { sessionId } = await browser.call("Target.attachToTarget", { targetId, flatten: true });
    const page = Object.assign(new Page(), { browser, targetId, sessionId, name, server, isOffline: false });
    browser.listeners.push(({ method, params, sessionId: from }) => {
      if (from !== sessionId) return;
      const url = params.request?.url ?? "";
      if (method === "Network.requestWillBeSent" && !url.startsWith(server) && !url.startsWith("data:") && !url.startsWith("file:") && !url.startsWith("blob:")) page.fail(`asks for ${url}`);
      if (method === "Runtime.exceptionThrown") page.fail(`throws ${params.exceptionDetails.exception?.description}`);
      if (method === "Runtime.consoleAPICalled") page.fail(`logs ${JSON.stringify(params.args.map((part) => part.value))}`);
      if (method === "Log.entryAdded" && !(page.isOffline && params.entry.source === "network")) page.fail(`${params.entry.level}: ${params.entry.text} ${params.entry.url ?? ""}`);
    });
    for (const domain of ["Page", "Network", "Runtime", "Log"]) await page.call(`${domain}.enable`);
    await page.call("Network.setExtraHTTPHeaders", { headers: { "Accept-Language": language } });
    await page.call("Emulation.setDeviceMetricsOverride", { width: view.width, height: view.height, deviceScaleFactor: 1, mobile: view.mobile });
    return page;
  }
  fail(what) {
    problems.push(`${this.name}: ${what}`);
    console.error(problems.at(-1));
  }
  call(method, params) { return this.browser.call(method, params, this.sessionId); }
  async run(expression) {
    const { result, exceptionDetails } = await this.call("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(`${this.name}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  }
  async comes(expression, most) {
    for (let waited = 0; waited < most; waited += 50) {
      // A page that is just being left cannot be asked.
      if (await this.run(expression).catch(() => false)) return true;
      await pause(50);
    }
    return false;
  }
  async until(expression, what) {
    const came = await this.comes(expression, 15000);
    if (!came) this.fail(`waited in vain for ${what}`);
    return came;
  }
  async go(path) {
    await this.call("Page.navigate", { url: new URL(path, this.server).href });
    await this.until("document.readyState === 'complete' && location.href !== 'about:blank'", path);
  }
  async key(key) {
    const text = key.length === 1 ? key : key === "Enter" ? "\r" : "";
    await this.call("Input.dispatchKeyEvent", { type: "keyDown", key, text });
    await this.call("Input.dispatchKeyEvent", { type: "keyUp", key });
  }
  token() { return this.run("document.getElementById('task')?.dataset.live ?? ''"); }
  async look(name) {
    const found = await this.run(`(async () => { ${axe}; const all = await axe.run(document, { resultTypes: ["violations"] });
      const found = all.violations.map((one) => one.id + ": " + one.nodes.map((node) => node.html.slice(0, 120)).join(" | "));
      if (document.documentElement.scrollWidth > innerWidth) found.push("scrolls sideways");
      if (window.owned) found.push("a script of a row ran");
      const small = [...document.querySelectorAll("button, select, summary, input:not([type=hidden],[type=radio],[type=checkbox]), nav a")].filter((one) => one.offsetParent && one.getBoundingClientRect().height < 47.5);
      if (small.length) found.push("smaller than 48 px: " + small.map((one) => one.outerHTML.slice(0, 80)).join(" | "));
      return found; })()`);
    found.forEach((one) => this.fail(`${name}: ${one}`));
    if (!shots) return;
    const { data } = await this.call("Page.captureScreenshot", { format: "png" });
    writeFileSync(join(shots, `${this.name.replaceAll(" ", "-")}-${name}.png`), Buffer.from(data, "base64"));
  }
}

const views = [{ name: "desk", width: 1200, height: 900, mobile: false }, { name: "phone", width: 390, height: 844, mobile: true }];

async function person(browser, server, view, language) {
  const { browserContextId } = await browser.call("Target.createBrowserContext");
  const page = await Page.open(browser, browserContextId, `${view.name} ${language}`, view, language, server.url);
  const before = (await server.events()).length;
  let expected = 0;
  const holds = async (more, what) => {
    expected += more;
    for (let waited = 0; waited < 15000; waited += 200) {
      if ((await server.events()).length - before === expected) return;
      await pause(200);
    }
    page.fail(`${what}: ${(await server.events()).length - before} events, expected ${expected}`);
  };
  // A step that shows another task.
  const moves = async (step, what) => {
    const old = await page.token();
    await step();
    await page.until(`document.readyState === 'complete' && (document.getElementById('task')?.dataset.live || '${old}') !== '${old}'`, what);
  };
  await page.go("/");
  await page.look("join");
  if (await page.run("document.documentElement.lang") !== language) page.fail("speaks another language");
  await page.run("document.querySelector('[name=name]').value = 'Ann'; document.querySelector('form.column button').click()");
  await page.until("document.getElementById('task')?.dataset.live", "a task");
  await page.look("task");
  await moves(() => page.key("1"), "the next task by key");
  await holds(1, "a vote by key");
  await moves(() => page.key("z"), "the task again");
  await holds(1, "an undo by key");
  await moves(() => page.run("document.querySelector('[data-key=\"=\"]').click()"), "the next task by click");
  await holds(1, "a vote by click");
  await page.key("e");
  await page.until("document.getElementById('edit').open && document.activeElement.tagName === 'TEXTAREA'", "the field for editing");
  await page.call("Input.insertText", { text: "better still " });
  await page.look("edit");
  await moves(() => page.run("document.activeElement.closest('form').querySelector('button').click()"), "the task after an edit");
  await holds(1, "an edit");
  await page.key("f");
  await page.look("flag");
  await moves(() => page.run("document.querySelector('#flag button').click()"), "the task after a flag");
  await holds(1, "a flag");
  await moves(() => page.key(" "), "the task after a skip");
  await holds(1, "a skip");
  const token = await page.token();
  await page.call("Page.reload");
  await page.until("document.readyState === 'complete' && document.getElementById('task')?.dataset.live", "the page again");
  if (await page.token() !== token) page.fail("shows another task after reloading");
  await moves(() => page.key("2"), "the next task");
  await holds(1, "a vote before going back");
  await page.go("/history");
  await page.look("history");
  await page.run("history.back()");
  await page.until("location.pathname === '/' && document.readyState === 'complete' && document.getElementById('task')?.dataset.live", "the task after going back");
  await pause(200);
  await moves(() => page.key("0"), "the next task after going back");
  await holds(1, "a vote after going back");
  // Two tabs with one task: both vote, one counts.
  const other = await Page.open(browser, browserContextId, `${page.name} other tab`, view, language, server.url);
  await other.go("/");
  await page.go("/");
  await other.until("document.getElementById('task')?.dataset.live", "a task in the other tab");
  if (await page.token() !== await other.token()) page.fail("two tabs show two tasks");
  await page.key("1");
  await other.key("2");
  await holds(1, "one vote from two tabs");
  await browser.call("Target.closeTarget", { targetId: other.targetId });
  await page.go("/");
  await page.until("document.getElementById('task')?.dataset.live", "a task");
  // The tasks ahead are there once the script has asked for them.
  await pause(700);
  page.isOffline = true;
  const network = (offline) => page.call("Network.emulateNetworkConditions", { offline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  await network(true);
  for (const key of ["1", "2", "="]) await moves(() => page.key(key), `the next task offline by ${key}`);
  await page.key("z");
  await moves(() => page.key("2"), "the next task offline after an undo");
  await page.until("/3/.test(document.getElementById('status').textContent) || /٣/.test(document.getElementById('status').textContent)", "the number of votes that wait");
  await page.look("offline");
  await holds(0, "votes without a connection");
  await network(false);
  await holds(3, "votes after the connection is back");
  await pause(300);
  page.isOffline = false;
  await holds(0, "votes some time later");
  const ids = (await server.events()).map((event) => event.id);
  if (new Set(ids).size !== ids.length) page.fail("an event stands twice");
  for (const path of ["/me", "/guidelines"]) { await page.go(path); await page.look(path.slice(1)); }
  return page;
}

async function ranking(browser, server, view) {
  const { browserContextId } = await browser.call("Target.createBrowserContext");
  const page = await Page.open(browser, browserContextId, `${view.name} ranking`, view, "en", server.url);
  await page.go("/");
  await page.run("document.querySelector('[name=name]').value = 'Bob'; document.querySelector('form.column button').click()");
  await page.until("document.getElementById('task')?.dataset.live", "a task");
  // A prompt whose answers are partly the same text has two: such tasks are skipped.
  for (let skipped = 0; skipped < 10 && await page.run("document.querySelectorAll('.answer').length") < 3; skipped++) {
    const token = await page.token();
    await page.key(" ");
    await page.until(`document.getElementById('task')?.dataset.live !== '${token}'`, "the task after a skip");
  }
  await page.until("document.querySelectorAll('.answer').length === 3", "three answers");
  await pause(500);
  const before = (await server.events()).length;
  const old = await page.token();
  for (const key of ["3", "1", "2"]) await page.key(key);
  await page.look("places");
  await page.key("Enter");
  await page.until(`document.getElementById('task')?.dataset.live !== '${old}'`, "the task after a ranking");
  await pause(500);
  const events = await server.events();
  const last = events.at(-1);
  const groups = JSON.stringify(last.choice.groups);
  if (events.length !== before + 1 || groups !== JSON.stringify([[last.shown[2]], [last.shown[0]], [last.shown[1]]])) page.fail(`a ranking became ${groups}`);
  return page;
}

// The connection is gone, the page is loaded again: what was fetched is there, what was said is kept, and counts once when the server is back.
async function reloading(browser, view, language) {
  let server = await serve();
  const port = new URL(server.url).port;
  const { browserContextId } = await browser.call("Target.createBrowserContext");
  const page = await Page.open(browser, browserContextId, `${view.name} ${language} reloading`, view, language, server.url);
  const before = (await server.events()).length;
  const text = () => page.run("document.querySelector('#task .prompt .text')?.textContent ?? ''");
  const other = (old, what) => page.until(`(document.getElementById('task')?.dataset.live || '${old}') !== '${old}'`, what);
  // Of what is set for a page its worker knows nothing; what somebody chose is a cookie.
  await page.go(`/language?to=${language}`);
  await page.go("/");
  await page.run("document.querySelector('[name=name]').value = 'Eve'; document.querySelector('form.column button').click()");
  await page.until("document.getElementById('task')?.dataset.live", "a task");
  await page.until("navigator.serviceWorker.controller !== null", "the worker");
  await page.until("(JSON.parse(localStorage.getItem('pairwright-tasks'))?.ahead ?? []).length > 3", "tasks ahead");
  const seen = new Set();
  const vote = async (key, what) => {
    const token = await page.token();
    seen.add(token);
    await page.key(key);
    await other(token, what);
    if (seen.has(await page.token())) page.fail(`${what}: an answered task is there again`);
  };
  await vote("1", "the next task");
  await pause(500);
  page.isOffline = true;
  await server.stop();
  await vote("2", "the next task without a server");
  for (const round of [1, 2]) {
    const [token, prompt] = [await page.token(), await text()];
    await page.call("Page.reload");
    await page.until("document.readyState === 'complete' && document.querySelector('#task .prompt .text')", `the page after reload ${round}`);
    await page.until(`document.getElementById('task').dataset.live === '${token}'`, `the same task after reload ${round}`);
    if (await text() !== prompt) page.fail("another task after a reload without a server");
    if (await page.run("document.documentElement.lang") !== language) page.fail("speaks another language after a reload");
    await page.look(`reload-${round}`);
    await vote("=", `the next task after reload ${round}`);
  }
  // The last one is taken back, and given again otherwise.
  const here = await page.token();
  await page.key("z");
  await other(here, "the task that was taken back");
  seen.delete(await page.token());
  await vote("0", "the next task after an undo");
  server = await serve("--port", port);
  const events = async () => (await server.events()).slice(before);
  for (let waited = 0; waited < 20000 && (await events()).length < 4; waited += 250) await pause(250);
  await pause(1000);
  page.isOffline = false;
  const found = await events();
  const said = found.map((event) => event.choice.choice).join(" ");
  if (said !== "better better same both_bad") page.fail(`votes after the server is back: ${said}`);
  if (new Set(found.map((event) => event.id)).size !== found.length) page.fail("an event stands twice");
  await page.call("Page.reload");
  await page.until("document.readyState === 'complete' && document.getElementById('task')?.dataset.live", "the page with a server");
  if (seen.has(await page.token())) page.fail("an answered task is there again with a server");
  // Whoever leaves takes the page along.
  await page.go("/me");
  await page.run("document.querySelector('form[action=\"/leave\"] button').click()");
  await page.until("location.pathname === '/join'", "the door");
  if (await page.run("caches.match('/').then((one) => one !== undefined)")) page.fail("the page of somebody who left is kept");
  await server.stop();
}

async function packed(browser, view) {
  const { browserContextId } = await browser.call("Target.createBrowserContext");
  const open = async (name) => {
    const page = await Page.open(browser, browserContextId, `${view.name} ${name}`, view, "ar", "file:");
    await page.call("Page.navigate", { url: pathToFileURL(resolve(pack)).href });
    await page.until("document.querySelector('#task .text')", "a task of the pack");
    return page;
  };
  const shows = (count) => `document.getElementById('count')?.textContent === '${count} / 5'`;
  const counts = (page, count, what) => page.until(shows(count), what);
  // Chromium 156 on a busy machine may open a file without what it keeps for it, and with it the next time (see pack.js).
  const keeps = async (page, count, what) => {
    for (let again = 0; again < 3 && !await page.comes(shows(count), 5000); again++) await page.call("Page.reload");
    return counts(page, count, what);
  };
  const page = await open("pack");
  await page.look("task");
  await page.key("1");
  await page.key("2");
  await page.run("document.getElementById('undo').click()");
  await page.call("Page.reload");
  await keeps(page, 1, "one vote that was kept");
  // Two tabs take nothing from each other.
  const other = await open("pack in another tab");
  await keeps(other, 1, "the other tab's vote");
  await other.key("=");
  await counts(page, 2, "a vote of the other tab");
  await page.call("Page.bringToFront");
  await page.key("0");
  await counts(page, 3, "a vote of each tab");
  await counts(other, 3, "a vote of each tab");
  await page.run("URL.createObjectURL = (blob) => { window.saved = blob.text(); return 'data:,'; }");
  await page.run("document.getElementById('save').click()");
  const saved = JSON.parse(await page.run("window.saved"));
  const said = saved.votes.map((vote) => vote.fields.choice).join(" ");
  if (said !== "better-0 same both_bad") page.fail(`the file has ${said}`);
}

const browser = new Browser();
try {
  let server = await serve();
  for (const view of views) for (const language of ["en", "ar", "th"]) await person(browser, server, view, language);
  const admin = await Page.open(browser, undefined, "desk admin", views[0], "en", server.url);
  await admin.go(new URL(server.admin).pathname);
  await admin.look("page");
  await server.stop();
  server = await serve("--rank");
  for (const view of views) await ranking(browser, server, view);
  await server.stop();
  for (const [view, language] of [[views[0], "en"], [views[1], "ar"]]) await reloading(browser, view, language);
  for (const view of views) await packed(browser, view);
} finally {
  await browser.close();
}
console.log(`annotating in ${views.length} views and 3 languages: ${problems.length ? `${problems.length} problems` : "nothing wrong"}`);
process.exit(problems.length ? 1 : 0);
