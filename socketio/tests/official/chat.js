// The chat in headless Chromium, two windows, as a person would use it: the table of the chat's README section.
'use strict';

const assert = require('node:assert/strict');
const { chromium } = require('playwright-core');
const { Program, main, sleep, test, until } = require('./lab.js');

// What a page loads; the package does not export its path.
const BUNDLE = require('node:path').join(__dirname, 'node_modules/socket.io-client/dist/socket.io.min.js');

async function freePort() {
  const server = require('node:net').createServer();
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

// The chat on a port and a file that stay the same when it is started again.
class Chat {
  static async start(scope, ...args) {
    const chat = new Chat();
    Object.assign(chat, { scope, port: await freePort(), args });
    chat.url = `http://127.0.0.1:${chat.port}`;
    await chat.restart();
    const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });
    scope.ends.push(() => browser.close());
    chat.browser = browser;
    return chat;
  }

  async restart() {
    this.program = await this.scope.program(process.env.CHAT, ['--port', String(this.port), '--db', this.scope.file('chat.db'), '--client-bundle', BUNDLE, ...this.args]);
    for (let tries = 0; ; tries++) {
      try { if ((await fetch(this.url)).ok) return; } catch { /* not yet */ }
      assert.ok(tries < 300 && !this.program.end, `the chat does not start: ${this.program.stderr}`);
      await sleep(30);
    }
  }

  async window() {
    const page = await (await this.browser.newContext()).newPage();
    page.errors = [];
    page.on('pageerror', (error) => page.errors.push(String(error)));
    await page.goto(this.url);
    await state(page, 'connected');
    return page;
  }
}

const text = (page, id) => page.textContent(`#${id}`);
const list = (page) => page.$$eval('#messages li', (items) => items.map((item) => item.textContent));
const state = (page, wanted) => page.waitForFunction((wanted) => document.getElementById('state').textContent.startsWith(wanted), wanted, { timeout: 30000 });
const lists = async (pages, wanted) => {
  for (const page of pages) {
    await page.waitForFunction((n) => document.querySelectorAll('#messages li').length >= n, wanted.length, { timeout: 30000 });
    assert.deepEqual(await list(page), wanted);
    assert.deepEqual(page.errors, []);
  }
};
async function write(page, message) {
  await page.fill('#input', message);
  await page.press('#input', 'Enter');
}

test('what is written appears in both windows, once', async (scope) => {
  const chat = await Chat.start(scope);
  const [a, b] = [await chat.window(), await chat.window()];
  await write(a, 'one');
  await lists([a, b], ['one']);
  await write(b, 'two');
  await lists([a, b], ['one', 'two']);
});

test('cut me: recovered, and what was missed appears once, in order', async (scope) => {
  const chat = await Chat.start(scope);
  const [a, b] = [await chat.window(), await chat.window()];
  const session = (await text(a, 'session')).split(' ')[0];
  await a.click('#cut');
  await state(a, 'disconnected');
  for (const message of ['x', 'y', 'z']) await write(b, message);
  await lists([b], ['x', 'y', 'z']);
  await state(a, 'connected');
  await lists([a], ['x', 'y', 'z']);
  assert.equal(await text(a, 'session'), `${session} (recovered)`);
});

test('reload: all messages, once, in order; fresh', async (scope) => {
  const chat = await Chat.start(scope);
  const a = await chat.window();
  for (const message of ['1', '2', '3']) await write(a, message);
  await lists([a], ['1', '2', '3']);
  await a.reload();
  await state(a, 'connected');
  await lists([a], ['1', '2', '3']);
  assert.match(await text(a, 'session'), /\(fresh\)$/);
});

test('disconnect, write in both, connect: all in both, once', async (scope) => {
  const chat = await Chat.start(scope);
  const [a, b] = [await chat.window(), await chat.window()];
  await a.click('#toggle');
  await state(a, 'disconnected');
  await write(a, 'mine');
  await write(b, 'theirs');
  await lists([b], ['theirs']);
  await a.click('#toggle');
  await state(a, 'connected');
  await lists([b], ['theirs', 'mine']);
  await a.waitForFunction(() => document.querySelectorAll('#messages li').length >= 2);
  assert.deepEqual((await list(a)).sort(), ['mine', 'theirs']);
  assert.equal(await text(a, 'queued'), '0');
});

for (const signal of ['SIGINT', 'SIGKILL']) {
  test(`${signal}, write, start again: the same sessions, nothing lost or twice`, async (scope) => {
    const chat = await Chat.start(scope);
    const [a, b] = [await chat.window(), await chat.window()];
    const sessions = await Promise.all([a, b].map(async (page) => (await text(page, 'session')).split(' ')[0]));
    await write(a, 'before');
    await lists([a, b], ['before']);
    await chat.program.kill(signal);
    await Promise.all([a, b].map((page) => page.waitForFunction(() => !document.getElementById('state').textContent.startsWith('connected'))));
    await write(a, 'from a');
    await write(b, 'from b');
    await chat.restart();
    for (const page of [a, b]) await state(page, 'connected');
    for (const page of [a, b]) await page.waitForFunction(() => document.querySelectorAll('#messages li').length >= 3, undefined, { timeout: 60000 });
    const [one, two] = [await list(a), await list(b)];
    assert.deepEqual(one, two);
    assert.deepEqual([...one].sort(), ['before', 'from a', 'from b']);
    for (const [i, page] of [a, b].entries()) assert.equal(await text(page, 'session'), `${sessions[i]} (recovered)`);
  });
}

test('stopped for longer than the window: fresh, only what is newer comes', async (scope) => {
  const chat = await Chat.start(scope, '--recovery', '1000');
  const a = await chat.window();
  await write(a, 'before');
  await lists([a], ['before']);
  await chat.program.kill('SIGTERM');
  await sleep(2500);
  await chat.restart();
  await state(a, 'connected');
  assert.match(await text(a, 'session'), /\(fresh\)$/);
  await write(a, 'after');
  await lists([a], ['before', 'after']);
});

test('two windows write while one is cut again and again: the same list in both', async (scope) => {
  const chat = await Chat.start(scope);
  const [a, b] = [await chat.window(), await chat.window()];
  for (let i = 0; i < 12; i++) {
    await write(a, `a${i}`);
    await write(b, `b${i}`);
    if (i % 4 === 1) await a.click('#cut');
    await sleep(60);
  }
  for (const page of [a, b]) await page.waitForFunction(() => document.querySelectorAll('#messages li').length >= 24, undefined, { timeout: 60000 });
  const [one, two] = [await list(a), await list(b)];
  assert.deepEqual(one, two);
  assert.equal(new Set(one).size, 24);
  assert.equal(one.length, 24);
});

test('SIGTERM with windows open: exits, and nothing is unsaved', async (scope) => {
  const chat = await Chat.start(scope);
  const a = await chat.window();
  await write(a, 'kept');
  await lists([a], ['kept']);
  const { code } = await chat.program.kill('SIGTERM');
  assert.equal(code, 0);
});

main(1);
