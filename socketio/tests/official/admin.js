// The official admin page (npm `@socket.io/admin-ui`) in headless Chromium, against the example `admin`.
'use strict';

const assert = require('node:assert/strict');
const { chromium } = require('playwright-core');
const { Program, main, test, until } = require('./lab.js');

const PAGE = require('node:path').join(__dirname, 'node_modules/@socket.io/admin-ui/ui/dist');

// The example with a client, and the page in a browser, logged in. The page begins with a namespace that has sockets.
async function admin(scope, password = 'secret') {
  process.env.ADMIN_PASSWORD = 'secret';
  const program = await scope.program(process.env.ADMIN, [PAGE, '0']);
  await until(() => program.lines.length > 0 || program.end, `the address of the server (${program.stderr})`);
  const url = program.lines[0].line.replace(/\/$/, '');
  const client = await scope.connected(url);
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });
  scope.ends.push(() => browser.close());
  const page = await browser.newPage();
  page.errors = [];
  page.on('pageerror', (error) => page.errors.push(String(error)));
  // Its fonts and icons are elsewhere.
  await page.route((address) => address.hostname !== '127.0.0.1', (route) => route.abort());
  await page.goto(url);
  await page.getByLabel('Server URL').fill(url);
  await page.getByLabel('Username').fill('admin');
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Connect' }).click();
  return { url, page, program, client };
}

const show = (page, hash) => page.evaluate((hash) => { location.hash = hash; }, hash);
const shows = async (page, ...texts) => {
  const all = (texts) => texts.every((text) => document.querySelector('main').innerText.includes(text));
  try {
    await page.waitForFunction(all, texts, { timeout: 15000 });
  } catch {
    throw new Error(`${texts} is not in: ${await page.innerText('main')}`);
  }
};
const connected = async ({ page }) => { await page.getByText('connected', { exact: true }).first().waitFor(); };

test('a wrong password is refused', async (scope) => {
  const { page } = await admin(scope, 'wrong');
  await page.getByText('Invalid credentials').waitFor();
});

test('servers, namespaces, sockets, rooms and events are shown', async (scope) => {
  const it = await admin(scope);
  await connected(it);
  const { page, client } = it;
  client.emit('join', 'lobby');
  await client.emitWithAck('echo', 'hello', 5);
  await shows(page, '/admin', 'WebSocket');
  await show(page, '/sockets/');
  await shows(page, client.id);
  await show(page, '/rooms/');
  await shows(page, 'lobby');
  await show(page, '/events/');
  await shows(page, 'Event received', 'Event sent', 'echo', client.id);
  await show(page, '/clients/');
  await shows(page, '127.0.0.1');
  await show(page, '/servers/');
  await shows(page, String(it.program.child.pid));
  client.disconnect();
  await show(page, '/events/');
  await shows(page, 'Disconnection');
  assert.deepEqual(page.errors, []);
});

test('join, leave and disconnect from the page', async (scope) => {
  const it = await admin(scope);
  await connected(it);
  const { page, client } = it;
  await show(page, `/n/${encodeURIComponent('/')}/sockets/${client.id}`);
  await shows(page, 'Join a room');
  await page.getByLabel('Join a room').fill('vip');
  await page.keyboard.press('Enter');
  await page.locator('main form button[type=submit]').click();
  await shows(page, 'vip');
  const row = page.locator('main tr', { hasText: 'vip', has: page.locator('button') });
  // It also leads to the room, which has nobody any more.
  await row.locator('button').click();
  await shows(page, 'Room details', 'DELETED');
  await show(page, `/n/${encodeURIComponent('/')}/sockets/${client.id}`);
  await shows(page, 'Socket details');
  // The first button ends the connection, the second one the socket.
  await page.locator('main button').nth(1).click();
  await until(() => client.reasons.length > 0, 'the disconnect');
  assert.equal(client.reasons[0].reason, 'io server disconnect');
  assert.deepEqual(page.errors, []);
});

test('a page that is loaded again needs no password', async (scope) => {
  const it = await admin(scope);
  await connected(it);
  await it.page.reload();
  await connected(it);
});

main(1);
