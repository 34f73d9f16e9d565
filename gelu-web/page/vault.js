// The sealed key in this browser: IndexedDB holds its bytes, the passphrase is kept nowhere.

const STORE = "keys";

function database() {
  return new Promise((resolve, reject) => {
    const asked = indexedDB.open("gelu", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore(STORE);
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}

async function store(mode, act) {
  const opened = await database();
  try {
    return await new Promise((resolve, reject) => {
      const change = opened.transaction(STORE, mode);
      const asked = act(change.objectStore(STORE));
      change.oncomplete = () => resolve(asked.result);
      change.onerror = change.onabort = () => reject(change.error);
    });
  } finally {
    opened.close();
  }
}

export const keptKey = () => store("readonly", (keys) => keys.get("key"));
export const keepKey = (sealed, fingerprint) => store("readwrite", (keys) => keys.put({ sealed, fingerprint }, "key"));
export const forgetKey = () => store("readwrite", (keys) => keys.delete("key"));
