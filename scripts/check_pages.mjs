// Pages that the program writes, opened in Chromium: in light and in dark, on a desk and on a phone. Fails where a page logs something,
// asks for anything but itself, runs a script of a row, scrolls sideways, or has text of too little contrast (WCAG AA).
// Speaks to the browser through a pipe and needs no package. Usage: node check_pages.mjs [--shots FOLDER] FILE.html...
import { writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Browser } from "./browser.mjs";

const files = process.argv.slice(2);
const shots = files[0] === "--shots" ? files.splice(0, 2)[1] : null;
const views = [
  { name: "light", width: 1100, scheme: "light", mobile: false },
  { name: "dark", width: 1100, scheme: "dark", mobile: false },
  { name: "phone", width: 390, scheme: "light", mobile: true },
  { name: "phone-dark", width: 390, scheme: "dark", mobile: true },
];

// Runs inside the page, by the debugger and not by the page.
function look() {
  const found = [];
  const root = document.documentElement;
  if (root.scrollWidth > window.innerWidth) found.push(`scrolls sideways: ${root.scrollWidth} > ${window.innerWidth}`);
  for (const name of ["script", "iframe", "object", "embed", "img", "link", "form", "base"]) {
    if (document.querySelector(name)) found.push(`holds <${name}>`);
  }
  for (const element of document.querySelectorAll("*")) {
    for (const { name, value } of element.attributes) {
      const isInside = name === "href" && value.startsWith("#") && document.getElementById(value.slice(1));
      if (name.startsWith("on") || (["href", "src", "srcset", "action", "xlink:href"].includes(name) && !isInside)) found.push(`${element.tagName} has ${name}=${value}`);
    }
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  if (new Set(ids).size < ids.length) found.push("an id stands twice");
  if (document.title.includes("OWNED") || window.owned) found.push("a script of a row ran");
  const numbers = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const luminance = ([red, green, blue]) => [red, green, blue]
    .map((part) => part / 255).map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    // Labels on cells of the grid stand on a colour that is drawn, not on a background.
    if (!texts.currentNode.data.trim() || element.closest("style,title,.on-strong,.on-weak")) continue;
    const style = getComputedStyle(element);
    const ink = numbers(element.closest("svg") ? style.fill : style.color);
    let behind = element;
    while (behind && (numbers(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
    const paper = numbers(getComputedStyle(behind ?? document.body).backgroundColor);
    const [low, high] = [luminance(ink), luminance(paper)].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    const what = `${element.tagName.toLowerCase()}.${element.getAttribute("class") ?? ""}: contrast ${contrast.toFixed(2)}`;
    if (contrast < 4.5 && !seen.has(what)) { seen.add(what); found.push(what); }
  }
  return found;
}

async function check(browser, file, view) {
  const url = pathToFileURL(resolve(file)).href;
  const { targetId } = await browser.call("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await browser.call("Target.attachToTarget", { targetId, flatten: true });
  const call = (method, params) => browser.call(method, params, sessionId);
  const problems = [];
  let loaded;
  const isLoaded = new Promise((resolve) => (loaded = resolve));
  const listener = ({ method, params, sessionId: from }) => {
    if (from !== sessionId) return;
    if (method === "Page.loadEventFired") loaded();
    if (method === "Network.requestWillBeSent" && params.request.url !== url) problems.push(`asks for ${params.request.url}`);
    if (method === "Runtime.consoleAPICalled") problems.push(`logs ${JSON.stringify(params.args.map((part) => part.value))}`);
    if (method === "Runtime.exceptionThrown") problems.push(`throws ${params.exceptionDetails.text}`);
    if (method === "Log.entryAdded") problems.push(`${params.entry.level}: ${params.entry.text}`);
    if (method === "Page.javascriptDialogOpening") problems.push("opens a dialog");
  };
  browser.listeners.push(listener);
  for (const domain of ["Page", "Network", "Runtime", "Log"]) await call(`${domain}.enable`);
  await call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: view.scheme }] });
  await call("Emulation.setDeviceMetricsOverride", { width: view.width, height: 900, deviceScaleFactor: 1, mobile: view.mobile });
  await call("Page.navigate", { url });
  await isLoaded;
  const { result, exceptionDetails } = await call("Runtime.evaluate", { expression: `(${look})()`, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  problems.push(...result.value);
  if (shots) {
    const { cssContentSize: { width, height } } = await call("Page.getLayoutMetrics");
    for (let top = 0, part = 0; top < height; top += 2000, part += 1) {
      const clip = { x: 0, y: top, width, height: Math.min(2000, height - top), scale: 1 };
      const { data } = await call("Page.captureScreenshot", { format: "png", captureBeyondViewport: true, clip });
      writeFileSync(join(shots, `${basename(file, ".html")}-${view.name}-${part}.png`), Buffer.from(data, "base64"));
    }
  }
  browser.listeners.splice(browser.listeners.indexOf(listener), 1);
  await browser.call("Target.closeTarget", { targetId });
  return problems.map((problem) => `${basename(file)} (${view.name}): ${problem}`);
}

const browser = new Browser();
const problems = [];
try {
  for (const file of files) for (const view of views) problems.push(...(await check(browser, file, view)));
} finally {
  await browser.close();
}
problems.forEach((problem) => console.error(problem));
console.log(`${files.length} pages in ${views.length} views: ${problems.length ? `${problems.length} problems` : "nothing wrong"}`);
process.exit(problems.length || !files.length ? 1 : 0);
