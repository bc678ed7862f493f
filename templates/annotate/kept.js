// What a browser keeps for a page, each thing under a key of its own: two tabs, or a page that is loaded again before the browser has passed on
// what the last one kept, take nothing from each other. Knows keys and JSON; knows nothing of votes. The scripts of pages stand behind it.
"use strict";
function kept(prefix) {
  const read = (key) => { try { return JSON.parse(localStorage.getItem(key)); } catch { return null; } };
  const keys = () => { try { return Object.keys(localStorage).filter((key) => key.startsWith(prefix)).sort(); } catch { return []; } };
  return {
    // By their names.
    all: () => keys().map(read).filter((one) => one !== null),
    get: (name) => read(prefix + name),
    put: (name, one) => { try { localStorage.setItem(prefix + name, JSON.stringify(one)); return true; } catch { return false; } },
    drop: (name) => { try { localStorage.removeItem(prefix + name); } catch { /* Then it was not kept either. */ } },
  };
}
