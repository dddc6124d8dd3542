// What every JavaScript client checks: the same data in Node and in the browser.
'use strict';

const cases = {
  sizes: [0, 1, 125, 126, 127, 65535, 65536, 1024 * 1024],
  pipelined: 1000,
  connections: 20,
  // Nothing that an honest closing handshake on the loopback does takes this long.
  closeLimitMs: 2000,

  bytes(length) {
    const out = new Uint8Array(length);
    let state = 0x9e3779b9 ^ length;
    for (let i = 0; i < length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      out[i] = state >>> 24;
    }
    return out;
  },

  // A text of exactly `length` bytes of UTF-8, with characters of one to four bytes.
  text(length) {
    const alphabet = [['a', 1], ['é', 2], ['漢', 3], ['🦀', 4], ['𝄞', 4], ['~', 1]];
    const parts = [];
    let left = length;
    for (let i = 0; left > 0; i++) {
      const [character, size] = alphabet[i % alphabet.length];
      if (size > left) {
        parts.push('x'.repeat(left));
        break;
      }
      parts.push(character);
      left -= size;
    }
    return parts.join('');
  },

  // A text of so many characters that compresses well, and better behind another one.
  prices(round, length) {
    let text = `round ${round}: `;
    for (let i = 0; text.length < length; i++) text += `{"id":${i * 7919 % 10007},"price":${i * 104729 % 997}},`;
    return text.slice(0, length);
  },

  sameBytes(a, b) {
    if (a.length !== b.length) return false;
    for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
    return true;
  },
};

// 123 bytes is the most that fits: 2 of code and 123 of reason are 125.
cases.longReason = cases.text(123);

cases.clientCloses = [
  [1000, ''],
  [1000, 'bye'],
  [3000, 'three thousand'],
  [4999, 'the last one'],
  [4000, 'ключ 𝄞 🦀'],
  [4001, cases.longReason],
];

cases.serverCloses = [
  [1000, ''],
  [1000, 'done'],
  [1001, 'going away'],
  [1011, 'unexpected'],
  [1013, 'try again later'],
  [3000, 'library'],
  [4000, 'private use with words'],
  [4999, 'ключ 𝄞 🦀'],
  [4002, cases.longReason],
];

cases.expect = (condition, message) => {
  if (!condition) throw new Error(message);
};

// Runs [name, async function] pairs one after the other; a case that hangs is a case that failed.
cases.runAll = async (list, report) => {
  for (const [name, body] of list) {
    let timer;
    const overdue = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error('no result within 20 s')), 20000);
    });
    try {
      await Promise.race([body(), overdue]);
      report(name, null);
    } catch (error) {
      report(name, error && error.message ? error.message : String(error));
    } finally {
      clearTimeout(timer);
    }
  }
};

if (typeof module === 'undefined') globalThis.cases = cases;
else module.exports = cases;
