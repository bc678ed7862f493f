// Keeps the page on which people vote for times without a connection: what the server says counts, and what it said last stands in for it.
// Browsers run this on this machine's own address or behind https alone. Knows three addresses; knows nothing of tasks and votes.
"use strict";
const KEPT = "pairwright-1";
const PATHS = ["/", "/style.css", "/page.js"];

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(KEPT).then((cache) => cache.addAll(PATHS)).then(() => self.skipWaiting()));
});
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  const path = new URL(url).pathname;
  // Somebody else may come: nothing of this person stays.
  if (method === "POST" && ["/leave", "/join", "/enter"].includes(path)) event.waitUntil(caches.delete(KEPT));
  if (method === "GET" && PATHS.includes(path)) event.respondWith(answer(event.request, path));
});

async function answer(request, path) {
  try {
    const said = await fetch(request);
    const cache = await caches.open(KEPT);
    if (said.ok && !said.redirected) await cache.put(path, said.clone());
    // The server sends people who are nobody elsewhere.
    else if (said.type === "opaqueredirect") await cache.delete(path);
    return said;
  } catch (error) {
    const kept = await caches.match(path);
    if (kept) return kept;
    throw error;
  }
}
