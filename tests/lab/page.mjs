// The page of close_lab in headless Chromium: node page.mjs PATH_TO_close_lab (page.sh sees to what it needs).
//
// Each test is one connection: clicks, then what the page shows of both ends is compared with close_lab's stdout.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import assert from 'node:assert/strict';

const PATIENCE_MS = 10_000;
const MAX_PAYLOAD = 200_000;
// Wide enough for a flood on a busy machine.
const CLOSE_TIMEOUT_MS = 3000;
const FLUSH_BUDGET_MS = 2500;
const SIZES = [[1280, 800], [390, 800]];
const LOST = ['messages', 'bytes', 'partial', 'inbound_messages', 'inbound_bytes', 'inbound_partial_bytes',
  'trailing_bytes', 'kernel_unsent'];

let passed = 0;
let failed = 0;
async function test(name, body) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('took too long')), 4 * PATIENCE_MS);
  });
  try {
    await Promise.race([body(), late]);
    passed++;
    console.log(`ok    page: ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAIL  page: ${name}: ${error.message.replace(/\s*\n\s*/g, ' ')}`);
  } finally {
    clearTimeout(timer);
  }
}

async function until(what, look) {
  const giveUp = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > giveUp) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// ---------------------------------------------------------------- close_lab

const [binary] = process.argv.slice(2);
const events = [];
let lab;
let origin;

async function startLab() {
  lab = spawn(binary, ['--listen', '127.0.0.1:0', '--max-payload', String(MAX_PAYLOAD),
    '--close-timeout', String(CLOSE_TIMEOUT_MS), '--flush-budget', String(FLUSH_BUDGET_MS), '--log-messages'], { stdio: ['ignore', 'pipe', 'inherit'] });
  lab.on('error', (error) => events.push({ event: 'no process', error }));
  createInterface({ input: lab.stdout }).on('line', (line) => events.push(JSON.parse(line)));
  const first = await until('close_lab to listen', () => events[0] ?? (lab.exitCode !== null && { event: 'it ended' }));
  assert.equal(first.event, 'listening', String(first.error ?? first.event));
  origin = `http://${first.addr}`;
}

const openOf = (path) => events.find((event) => event.event === 'open' && event.path === path);
const eventsOf = (path, name) => events.filter((event) => event.event === name && event.id === openOf(path)?.id);

// ---------------------------------------------------------------- the page

let tab;
const command = (template) => tab.click(`[data-command="${template}"]`);
const write = (name, value) => tab.fill(`#commands [name="${name}"]`, String(value));
const shownLines = () => tab.$$eval('#log li', (lines) => lines.map((line) => line.lastChild.textContent));

async function connect() {
  await tab.click('#clear');
  await tab.click('#connect');
  await tab.waitForSelector('#state[data-state=open]', { timeout: PATIENCE_MS });
  return tab.textContent('#path');
}

async function read() {
  return tab.evaluate(() => {
    const cells = (from) => Object.fromEntries([...from.querySelectorAll('dd')].map((cell) => [cell.dataset.field, cell.textContent]));
    const [report, lost] = document.querySelectorAll('#server dl');
    return {
      browser: cells(document.querySelector('#browser')),
      server: report ? cells(report) : null,
      lost: lost ? cells(lost) : null,
      hot: [...document.querySelectorAll('#server dd.hot')].map((cell) => cell.dataset.field),
      verdicts: Object.fromEntries([...document.querySelectorAll('#verdicts [data-row]')].map((row) => [row.dataset.row, row.dataset.verdict])),
      words: document.querySelector('#verdicts').innerText,
      timeline: document.querySelector('#timeline svg')?.getAttribute('aria-label'),
    };
  });
}

const closedTab = () => tab.waitForSelector('#state[data-state=closed]', { timeout: PATIENCE_MS });

// What the page shows when the report is there, checked field by field against stdout.
async function ended(path) {
  await closedTab();
  await tab.waitForSelector(`#server[data-state=ready][data-path="${path}"]`, { timeout: PATIENCE_MS });
  return checked(path);
}

async function checked(path) {
  await until('close on stdout', () => eventsOf(path, 'close').length);
  assert.equal(eventsOf(path, 'close').length, 1, 'one close on stdout');
  const [line] = eventsOf(path, 'close');
  const page = await read();
  for (const [name, value] of Object.entries(line)) {
    if (name === 'event' || name === 'lost') continue;
    assert.ok(name in page.server, `the page does not show ${name}`);
    if (name === 'reason') assert.equal(page.server.reason, value || '(empty)');
    else if (name === 'sent' || name === 'received') assert.equal(page.server[name], frame(value), name);
    else if (name.endsWith('_ms')) assert.match(page.server[name], /^\d+(\.\d+)? m?s$/);
    else if (typeof value !== 'object') assert.equal(page.server[name], String(value), name);
  }
  assert.deepEqual(Object.keys(page.lost).sort(), [...LOST].sort(), 'counters of what was lost');
  for (const name of LOST) {
    assert.equal(page.lost[name], line.lost[name]?.toLocaleString('en') ?? '–', `lost ${name}`);
  }
  assert.deepEqual(page.hot.sort(), LOST.filter((name) => line.lost[name] > 0).sort(), 'highlighted');
  return { line, ...page };
}

const frame = (sent) => (sent ? `${sent.code ?? 'no code'}${sent.reason ? ` “${sent.reason}”` : ''}` : 'none');

// Both ends must say `code` and `clean`, and the page that they agree.
function agreed(seen, { code, reason = '', clean, cause, initiator = 'Local' }) {
  assert.deepEqual(
    { code: seen.browser.code, reason: seen.browser.reason, clean: seen.browser.wasClean },
    { code: String(code), reason: reason || '(empty)', clean: String(clean) }, 'CloseEvent');
  assert.deepEqual(
    { code: seen.line.effective_code, clean: seen.line.was_clean, cause: seen.line.cause, initiator: seen.line.initiator },
    { code, clean, cause, initiator }, 'stdout');
  assert.deepEqual(seen.verdicts, { code: 'agree', reason: 'agree', clean: 'agree' }, seen.words);
}

const nothingLost = (line) => assert.deepEqual(LOST.filter((name) => line.lost[name] > 0), []);

function ordered(timeline, ...labels) {
  const at = labels.map((label) => timeline.indexOf(label));
  assert.ok(at.every((place, index) => place >= 0 && (index === 0 || place > at[index - 1])),
    `the timeline says: ${timeline}; wanted ${labels.join(', ')}`);
}

// Labels of the timeline that do not fit into it.
const cutLabels = () => tab.evaluate(() => {
  const { left, right } = document.querySelector('#timeline svg').getBoundingClientRect();
  return [...document.querySelectorAll('#timeline text')].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.left < left - 0.5 || box.right > right + 0.5;
  }).map((text) => text.textContent);
});

// ---------------------------------------------------------------- the tests

const paths = [];

async function endings() {
  await test('close 4000 with a reason', async () => {
    const path = await connect();
    paths.push(path);
    await write('code', 4000);
    await write('reason', 'auf Wiedersehen, 再见');
    await command('close {frame}');
    const seen = await ended(path);
    agreed(seen, { code: 4000, reason: 'auf Wiedersehen, 再见', clean: true, cause: 'LocalClose' });
    nothingLost(seen.line);
    ordered(seen.timeline, 'Close 4000 sent', 'Close 4000 received', 'FIN', 'done', 'CloseEvent');
    assert.equal(eventsOf(path, 'closing').length, 1);
  });

  await test('close without a code', async () => {
    const path = await connect();
    paths.push(path);
    await command('close');
    const seen = await ended(path);
    agreed(seen, { code: 1005, clean: true, cause: 'LocalClose' });
    assert.equal(eventsOf(path, 'closing')[0].code, null);
  });

  await test('close-in', async () => {
    const path = await connect();
    paths.push(path);
    await write('code', 3999);
    await write('reason', '');
    await command('close-in {ms} {frame}');
    agreed(await ended(path), { code: 3999, clean: true, cause: 'LocalClose' });
  });

  await test('kick: the last message, then Close', async () => {
    const path = await connect();
    paths.push(path);
    await write('code', 4001);
    await write('reason', 'kicked');
    await command('kick {frame}|{message}');
    const seen = await ended(path);
    agreed(seen, { code: 4001, reason: 'kicked', clean: true, cause: 'Kicked' });
    assert.ok((await shownLines()).includes('you are out'), 'the last message is in the log');
  });

  for (const style of ['reset', 'fin', 'auto']) {
    await test(`terminate ${style}`, async () => {
      const path = await connect();
      paths.push(path);
      await command(`terminate ${style}`);
      const seen = await ended(path);
      agreed(seen, { code: 1006, clean: false, cause: 'Terminated' });
      ordered(seen.timeline, 'abort', 'done', 'CloseEvent');
      assert.ok(!seen.timeline.includes('Close 1'), seen.timeline);
      const words = { reset: 'abort: RST from', fin: 'abort: FIN from', auto: 'abort: RST or FIN from' }[style];
      assert.ok(seen.timeline.includes(words), seen.timeline);
      assert.doesNotMatch(await tab.textContent('#timeline .note'), /FIN/, 'no FIN is told of under an abort');
    });
  }

  await test('flood-close: every message, then Close', async () => {
    const path = await connect();
    paths.push(path);
    await write('count', 120);
    await write('size', 65536);
    await write('code', 1001);
    await write('reason', 'behind the flood');
    await command('flood-close {count} {size} {frame}');
    const seen = await ended(path);
    agreed(seen, { code: 1001, reason: 'behind the flood', clean: true, cause: 'LocalClose' });
    nothingLost(seen.line);
    assert.equal(eventsOf(path, 'flood')[0].accepted, 120);
    assert.equal(seen.browser.messages, '0 texts, 120 binary (7,864,320 bytes)');
    await until('the summary', async () =>
      (await shownLines()).includes('120 binary messages, 7,864,320 bytes (numbers 0 to 119, no gap)'));
  });

  await test('flood-terminate: what is lost is counted and highlighted', async () => {
    const path = await connect();
    paths.push(path);
    await write('count', 300);
    await tab.selectOption('[name=style]', 'reset');
    await command('flood-terminate {count} {size} {style}');
    const seen = await ended(path);
    agreed(seen, { code: 1006, clean: false, cause: 'Terminated' });
    const { accepted } = eventsOf(path, 'flood')[0];
    assert.equal(accepted, 300);
    assert.ok(seen.line.lost.messages > 0 && seen.hot.includes('messages'), 'messages are lost and highlighted');
  });

  await test('flood-kick', async () => {
    const path = await connect();
    paths.push(path);
    await write('count', 20);
    await write('code', 4002);
    await command('flood-kick {count} {size} {frame}|{message}');
    const seen = await ended(path);
    agreed(seen, { code: 4002, reason: 'behind the flood', clean: true, cause: 'Kicked' });
    assert.equal(seen.browser.messages, '1 text, 20 binary (1,310,720 bytes)');
  });

  await test('late: the text behind the Close is refused, not swallowed', async () => {
    const path = await connect();
    paths.push(path);
    await command('late');
    const seen = await ended(path);
    agreed(seen, { code: 1000, clean: true, cause: 'LocalClose' });
    assert.deepEqual(eventsOf(path, 'send_refused').map((event) => event.error), ['Closing']);
    assert.equal(seen.browser.messages, '0 texts, 0 binary');
  });

  await test('the page closes with 3001', async () => {
    const path = await connect();
    paths.push(path);
    await tab.click('#own-close');
    const seen = await ended(path);
    agreed(seen, { code: 3001, reason: 'the page has had enough', clean: true, cause: 'PeerClose', initiator: 'Remote' });
    assert.deepEqual(seen.line.received, { code: 3001, reason: 'the page has had enough' });
    assert.deepEqual(seen.line.sent, { code: 3001, reason: 'the page has had enough' });
    ordered(seen.timeline, 'ws.close()', 'Close 3001 received', 'Close 3001 sent', 'FIN', 'done', 'CloseEvent');
  });

  await test('the page closes without a code', async () => {
    const path = await connect();
    paths.push(path);
    await write('own-code', '');
    await tab.click('#own-close');
    agreed(await ended(path), { code: 1005, clean: true, cause: 'PeerClose', initiator: 'Remote' });
    await write('own-code', 3001);
  });

  await test('both close at once: the codes differ, and the page says why', async () => {
    const path = await connect();
    paths.push(path);
    await write('block', 1500);
    await write('code', 4003);
    await command('block {block}');
    await until('the block', () => eventsOf(path, 'message').length);
    // While it sleeps both arrive, so that it reads them together.
    await tab.evaluate(() => {
      for (const button of ['[data-command="close {frame}"]', '#own-close']) document.querySelector(button).click();
    });
    const seen = await ended(path);
    assert.deepEqual([seen.line.cause, seen.line.initiator, seen.line.effective_code], ['Crossed', 'Both', 3001]);
    assert.equal(seen.browser.code, '4003');
    assert.deepEqual(seen.verdicts, { code: 'explained', reason: 'agree', clean: 'agree' }, seen.words);
    assert.match(seen.words, /each end keeps the code that it received/);
    assert.deepEqual(await cutLabels(), []);
  });

  await test('a page that does not read: the Close never leaves, and the page says why', async () => {
    const path = await connect();
    paths.push(path);
    // The first message alone is more than both kernels hold.
    await write('count', 2);
    await write('size', 1 << 24);
    await write('code', 4006);
    await tab.evaluate((until) => {
      document.querySelector('[data-command^=flood-close]').click();
      while (Date.now() < until);
    }, Date.now() + CLOSE_TIMEOUT_MS + 1500);
    const seen = await ended(path);
    const { accepted } = eventsOf(path, 'flood')[0];
    assert.deepEqual([seen.line.cause, seen.line.cause_fields, seen.line.effective_code, accepted],
      ['CloseTimeout', { flushed: false }, 4006, 2]);
    assert.equal(seen.browser.code, '1006');
    assert.deepEqual(seen.verdicts, { code: 'explained', reason: 'explained', clean: 'agree' }, seen.words);
    assert.deepEqual([seen.line.lost.messages, seen.line.lost.partial], [1, 1]);
    ordered(seen.timeline, 'Close 4006 never sent', 'abort', 'done', 'CloseEvent');
    assert.deepEqual(await cutLabels(), []);
  });

  await test('a message too big: clean for one end only, and the page says why', async () => {
    const path = await connect();
    paths.push(path);
    await write('text', 'x'.repeat(MAX_PAYLOAD + 1));
    await tab.click('#send');
    await write('text', '');
    const seen = await ended(path);
    assert.deepEqual([seen.line.cause, seen.line.effective_code, seen.line.was_clean], ['TooBig', 1009, false]);
    assert.equal(seen.browser.code, '1009');
    assert.equal(seen.verdicts.code, 'agree', seen.words);
    assert.deepEqual(seen.verdicts, { code: 'agree', reason: 'agree', clean: 'explained' }, seen.words);
  });
}

async function others() {
  await test('echo, an impossible command, stats, ping', async () => {
    const path = await connect();
    paths.push(path);
    for (const text of ['<b>hello</b>', 'close 1006']) {
      await write('text', text);
      await tab.click('#send');
    }
    await command('stats');
    await command('ping {payload}');
    await until('the answers', async () => {
      const lines = await shownLines();
      return lines.filter((line) => line === '<b>hello</b>').length === 2
        && lines.some((line) => line.startsWith('error: '))
        && lines.some((line) => line.startsWith('{') && JSON.parse(line).open === 1);
    });
    await write('text', 'close 1000 typed');
    await tab.press('[name=text]', 'Enter');
    agreed(await ended(path), { code: 1000, reason: 'typed', clean: true, cause: 'LocalClose' });
    await write('text', '');
  });

  await test('pause, then resume by a second connection', async () => {
    const path = await connect();
    paths.push(path);
    await command('pause');
    await write('text', 'patience');
    await tab.click('#send');
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.equal((await shownLines()).filter((line) => line === 'patience').length, 1, 'no echo while paused');
    await tab.click('#resume');
    await until('the echo', async () => (await shownLines()).filter((line) => line === 'patience').length === 2);
    await write('text', '');
    await command('terminate-where {prefix}');
    const seen = await ended(path);
    agreed(seen, { code: 1006, clean: false, cause: 'Terminated' });
    await until('sweep_done', () => events.some((event) => event.event === 'sweep_done' && event.matched === 1));
  });

  await test('ws.close on a paused connection: the page says what it waits for', async () => {
    const path = await connect();
    paths.push(path);
    await command('pause');
    await until('the pause', () => eventsOf(path, 'message').length);
    assert.equal(await tab.textContent('#state'), 'open, paused');
    assert.ok(await tab.isHidden('#paused'));
    await tab.click('#own-close');
    assert.ok(await tab.isVisible('#paused'), 'the hint is there');
    assert.equal(await tab.textContent('#state'), 'closing, paused');
    await tab.click('#resume');
    const seen = await ended(path);
    agreed(seen, { code: 3001, reason: 'the page has had enough', clean: true, cause: 'PeerClose', initiator: 'Remote' });
    assert.ok(await tab.isHidden('#paused'));
  });

  await test('a tooltip on everything that can be pressed or filled in', async () => {
    const bare = await tab.$$eval('button:not([title]), input:not([title]), select:not([title])', (found) =>
      found.filter((node) => !node.closest('#history')).map((node) => node.outerHTML.slice(0, 80)));
    assert.deepEqual(bare, []);
  });

  await test('close-where', async () => {
    const path = await connect();
    paths.push(path);
    await write('code', 4004);
    await write('reason', 'all of you');
    await command('close-where {prefix} {frame}');
    agreed(await ended(path), { code: 4004, reason: 'all of you', clean: true, cause: 'LocalClose' });
  });

  await test('by keyboard alone', async () => {
    await tab.focus('#connect');
    await tab.keyboard.press('Enter');
    await tab.waitForSelector('#state[data-state=open]', { timeout: PATIENCE_MS });
    const path = await tab.textContent('#path');
    paths.push(path);
    assert.equal(await tab.evaluate(() => document.activeElement.textContent), 'close', 'the focus is on the first command');
    await tab.keyboard.press('Tab');
    await tab.keyboard.press('Space');
    agreed(await ended(path), { code: 1005, clean: true, cause: 'LocalClose' });
    assert.equal(await tab.evaluate(() => document.activeElement.id), 'connect', 'the focus is back');
  });

  await test('the history, and an older connection again', async () => {
    const rows = await tab.$$eval('#history tr', (found) => found.map((row) => [...row.children].map((cell) => cell.textContent)));
    assert.deepEqual(rows.map((row) => `/page/${row[0]}`), paths.toReversed().slice(0, rows.length));
    for (const row of rows) {
      const [line] = eventsOf(`/page/${row[0]}`, 'close');
      assert.deepEqual([row[3], row[5], row[6]], [String(line.effective_code), line.initiator, line.cause]);
    }
    const path = paths.at(-3);
    await tab.click(`#history button[aria-label="show ${path}"]`);
    assert.equal((await checked(path)).line.id, openOf(path).id);
  });
}

async function layout() {
  for (const colorScheme of ['light', 'dark']) {
    for (const [width, height] of SIZES) {
      await test(`nothing overflows at ${width}x${height}, ${colorScheme}`, async () => {
        await tab.emulateMedia({ colorScheme });
        await tab.setViewportSize({ width, height });
        const path = await connect();
        paths.push(path);
        await write('code', 4005);
        await write('reason', 'W'.repeat(123));
        await command('close {frame}');
        await ended(path);
        const wide = await tab.evaluate(() => [...document.querySelectorAll('body *')]
          .filter((node) => !node.closest('.scroll, .log, datalist') && node.getBoundingClientRect().right > innerWidth + 0.5)
          .map((node) => node.outerHTML.slice(0, 60)));
        assert.deepEqual(wide, []);
        assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'the page scrolls sideways');
        assert.deepEqual(await cutLabels(), [], 'labels of the timeline are cut');
      });
    }
  }
  await tab.setViewportSize({ width: SIZES[0][0], height: SIZES[0][1] });
}

async function shutdown() {
  await test('shutdown: 1001, and the report by hand when no connection is taken any more', async () => {
    const path = await connect();
    await command('shutdown {grace} {spread}');
    await closedTab();
    await tab.waitForSelector(`#server[data-state=unreachable][data-path="${path}"]`, { timeout: PATIENCE_MS });
    const line = await until('close on stdout', () => eventsOf(path, 'close')[0]);
    await tab.fill('#pasted', JSON.stringify(line));
    await tab.click('#use');
    agreed(await ended(path), { code: 1001, clean: true, cause: 'ShutdownSoft' });
    const { report } = await until('the report of the shutdown', () => events.find((event) => event.event === 'shutdown'));
    assert.deepEqual([report.live_at_start, report.clean, report.terminated], [1, 1, 0]);
    await until('the end of the process', () => lab.exitCode !== null);
    assert.equal(lab.exitCode, 0);
  });

  await test('connecting to nobody', async () => {
    await tab.click('#connect');
    await closedTab();
    assert.equal((await read()).browser.code, '1006');
    assert.match(await tab.textContent('#server'), /never opened/);
  });
}

async function main() {
  if (!binary) throw new Error('usage: page.mjs PATH_TO_close_lab');
  const { chromium } = createRequire(new URL('../foreign/package.json', import.meta.url))('playwright-core');
  await startLab();
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
  try {
    const faults = [];
    const foreign = [];
    tab = await browser.newPage({ viewport: { width: SIZES[0][0], height: SIZES[0][1] } });
    tab.setDefaultTimeout(PATIENCE_MS);
    tab.on('pageerror', (error) => faults.push(error.message));
    tab.on('request', (request) => {
      if (!request.url().startsWith(`${origin}/`) && !request.url().startsWith('data:')) foreign.push(request.url());
    });
    await tab.goto(`${origin}/`);
    await endings();
    await others();
    await layout();
    await shutdown();
    await test('no fault in the page, and nothing from elsewhere', async () => {
      assert.deepEqual(faults, []);
      assert.deepEqual(foreign, []);
    });
  } finally {
    await browser.close();
  }
}

try {
  await main();
} catch (error) {
  failed++;
  console.log(`FAIL  page: ${error.message}`);
}
if (lab && lab.exitCode === null && lab.signalCode === null && lab.pid) {
  lab.kill('SIGKILL');
  await once(lab, 'exit');
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
