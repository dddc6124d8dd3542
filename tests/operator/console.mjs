// The console in headless Chromium: node console.mjs PATH_TO_console (run.sh sees to what it needs).
//
// Clients of npm ws make what the page shows; what it does is seen at the clients.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import assert from 'node:assert/strict';

const PATIENCE_MS = 15_000;
const TOKEN = 'correct horse battery staple';
const SIZES = [[1280, 900], [390, 800]];
const tool = createRequire(new URL('../foreign/package.json', import.meta.url));
const WebSocket = tool('ws');

let passed = 0;
let failed = 0;
async function test(name, body) {
  try {
    await body();
    passed++;
    console.log(`ok    console: ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAIL  console: ${name}: ${error.message.replace(/\s*\n\s*/g, ' ')}`);
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

const [binary] = process.argv.slice(2);
const lines = [];
const server = spawn(binary, ['127.0.0.1:0', '2'], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, CONSOLE_TOKEN: TOKEN } });
createInterface({ input: server.stdout }).on('line', (line) => lines.push(line));
const clients = [];
let tab;
let origin;

async function client(path) {
  const socket = new WebSocket(`${origin.replace('http', 'ws')}${path}`, { perMessageDeflate: false });
  socket.on('error', () => {});
  socket.on('close', (code, reason) => { socket.ended = [code, String(reason)]; });
  await once(socket, 'open');
  clients.push(socket);
  return socket;
}

const rowOf = (path) => tab.locator('#rows tr', { hasText: path });
const tile = async (name) => (await tab.textContent(`[data-tile="${name}"] b`)).trim();
const column = (key) => tab.$$eval(`#rows td:nth-child(${key})`, (cells) => cells.map((cell) => cell.textContent));

async function login() {
  await test('nobody gets in without the token', async () => {
    await tab.goto(`${origin}/`);
    assert.equal(tab.url(), `${origin}/console`);
    await tab.fill('#token', TOKEN.replace('h', 'H'));
    await tab.click('#login button');
    await until('the refusal', async () => (await tab.textContent('#refused')).includes('not the token'));
    assert.ok(await tab.isHidden('#console'));
    // Neither does one who sends an order first, or nothing at all.
    const impatient = await client('/console/live');
    impatient.send('{"drain": 0}');
    await until('1008', () => impatient.ended?.[0] === 1008);
    const silent = await client('/console/live');
    let heard = 0;
    silent.on('message', () => heard++);
    await until('1008', () => silent.ended?.[0] === 1008);
    assert.equal(heard, 0);
  });

  await test('the token opens it', async () => {
    await tab.fill('#token', TOKEN);
    await tab.keyboard.press('Enter');
    await tab.waitForSelector('#console', { state: 'visible' });
    assert.equal(await tab.textContent('#phases [aria-current]'), 'Serving');
    assert.ok(!tab.url().includes('token'), 'the token is in no URL');
  });
}

async function live() {
  await test('clients, what they send, and who they are', async () => {
    const talker = await client('/talker');
    await client('/quiet');
    await until('both in the table', async () => await rowOf('/talker').count() && await rowOf('/quiet').count());
    talker.timer = setInterval(() => talker.send('x'.repeat(500)), 5);
    await until('its rate', async () => Number(await tile('messages in / s')) > 20);
    await until('open connections', async () => await tile('open') === '3');
    const cells = await rowOf('/talker').locator('td').allTextContents();
    assert.equal(cells[1], 'client');
    assert.match(cells[2], /^127\.0\.0\.1:/);
    assert.equal(cells[4], 'Open');
    await until('bytes a second', async () => /KiB/.test(await rowOf('/talker').locator('td').nth(6).textContent()));
  });

  await test('a slow consumer comes first, and is marked', async () => {
    const slow = await client('/slow');
    slow._socket.pause();
    const big = Buffer.alloc(1 << 20);
    for (let n = 0; n < 24; n++) slow.send(big);
    await tab.waitForSelector('#rows tr.slow', { timeout: PATIENCE_MS });
    assert.ok((await tab.textContent('#rows tr:first-child')).includes('/slow'));
    assert.match((await column(6))[0], /MiB/);
  });

  await test('the table sorts and filters', async () => {
    await tab.click('th[data-key=path] button');
    assert.equal(await tab.getAttribute('th[data-key=path]', 'aria-sort'), 'ascending');
    const paths = await column(4);
    assert.deepEqual(paths, paths.toSorted());
    await tab.click('th[data-key=path] button');
    assert.deepEqual(await column(4), paths.toReversed());
    await tab.fill('#filter', '/quiet');
    assert.deepEqual(await column(4), ['/quiet']);
    await tab.fill('#filter', '');
    await tab.click('th[data-key=backlog] button');
  });

  await test('each limit is a bar', async () => {
    const names = await tab.$$eval('#caps dt', (found) => found.map((node) => node.textContent));
    assert.deepEqual(names, ['connections', 'handshakes', 'deferred', 'per address', 'backlog', 'handle queue', 'descriptors']);
    assert.match(await tab.textContent('#caps dd'), / of 20\.0 k$/);
  });
}

async function layout() {
  for (const colorScheme of ['light', 'dark']) {
    for (const [width, height] of SIZES) {
      await test(`nothing overflows at ${width}x${height}, ${colorScheme}`, async () => {
        await tab.emulateMedia({ colorScheme });
        await tab.setViewportSize({ width, height });
        await tab.waitForTimeout(1500);
        const wide = await tab.evaluate(() => [...document.querySelectorAll('body *')]
          .filter((node) => !node.closest('.scroll') && node.getBoundingClientRect().right > innerWidth + 0.5)
          .map((node) => node.outerHTML.slice(0, 60)));
        assert.deepEqual(wide, []);
        if (process.env.SCREENSHOTS) {
          await tab.screenshot({ path: `${process.env.SCREENSHOTS}/console-${colorScheme}-${width}.png`, fullPage: true });
        }
      });
    }
  }
  await tab.setViewportSize({ width: SIZES[0][0], height: SIZES[0][1] });
}

async function orders() {
  await test('one is kicked, one is cut, the others stay', async () => {
    const [kicked, cut] = [await client('/kicked'), await client('/cut')];
    await rowOf('/kicked').locator('[data-order=kick]').click();
    await until('the Close', () => kicked.ended);
    assert.deepEqual(kicked.ended, [4000, 'kicked by an operator']);
    await rowOf('/cut').locator('[data-order=terminate]').click();
    await until('the reset', () => cut.ended);
    assert.equal(cut.ended[0], 1006);
    await until('both gone from the table', async () => !(await rowOf('/kicked').count()) && !(await rowOf('/cut').count()));
    const causes = await until('the causes', async () => {
      const found = await tab.$$eval('#causes dt', (names) => names.map((name) => name.textContent));
      return found.includes('LocalClose') && found.includes('Terminated') && found;
    });
    assert.ok(causes.length >= 2);
    assert.ok(clients.some((socket) => socket.readyState === WebSocket.OPEN));
  });

  await test('the server is drained', async () => {
    tab.on('dialog', (dialog) => dialog.accept());
    const staying = clients.filter((socket) => socket.readyState === WebSocket.OPEN);
    // It would hold the grace.
    for (const socket of staying) {
      clearInterval(socket.timer);
      socket._socket.resume();
    }
    await tab.click('#drain');
    await until('the lame duck', async () => await tab.textContent('#phases [aria-current]') === 'Lame Duck');
    await tab.click('#escalate');
    await until('1001 for all', () => staying.every((socket) => socket.ended));
    assert.ok(staying.every((socket) => socket.ended[0] === 1001), JSON.stringify(staying.map((socket) => socket.ended)));
    await until('the end of the process', () => server.exitCode !== null);
    assert.equal(server.exitCode, 0);
    await until('that it says so', async () => (await tab.textContent('#ended')).includes('has ended'));
    assert.equal(await tab.textContent('#phases [aria-current]'), 'Done');
  });
}

async function main() {
  const { chromium } = tool('playwright-core');
  origin = (await until('the server to listen', () => lines[0])).match(/http:\/\/[^/]+/)[0];
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
    await login();
    await live();
    await layout();
    await orders();
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
  console.log(`FAIL  console: ${error.message}`);
}
clients.forEach((socket) => socket.terminate());
if (server.exitCode === null && server.signalCode === null) {
  server.kill('SIGKILL');
  await once(server, 'exit');
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
