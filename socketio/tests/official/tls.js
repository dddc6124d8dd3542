// The official client over https and wss to the loop's own TLS: default options begin with polling, so the HTTP thread serves
// sessions that the loop hands over. The client's only option is which authority it trusts.
'use strict';

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const { mkdtempSync, readFileSync, rmSync } = require('node:fs');
const https = require('node:https');
const os = require('node:os');
const path = require('node:path');
const { ask, connection, events, main, test, until } = require('./lab.js');

const folder = mkdtempSync(path.join(os.tmpdir(), 'sio-tls-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const [cert, key] = ['cert.pem', 'key.pem'].map((name) => path.join(folder, name));
execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-keyout', key,
  '-out', cert, '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'], { stdio: 'ignore' });
const ca = readFileSync(cert);

const WAYS = { 'default options': {}, 'websocket alone': { transports: ['websocket'] }, 'polling alone': { transports: ['polling'] } };
for (const [way, options] of Object.entries(WAYS)) {
  const each = (name, run, ...args) => test(`${name} (${way})`, async (scope) => {
    const lab = await scope.lab(`--tls-cert=${cert}`, `--tls-key=${key}`, '--max-payload=1000000', ...args);
    const url = lab.url.replace('http:', 'https:');
    await run(scope, () => scope.connected(url, { ca, ...options }), url);
  });

  each('4.7: a client connects, and uses the transport that it wants', async (scope, connect) => {
    const client = await connect();
    const wanted = way === 'polling alone' ? 'polling' : 'websocket';
    await until(() => client.io.engine.transport.name === wanted, wanted);
    assert.equal(await ask(client, 'echo', 'x'), 'x');
  });

  each('4.7: large and binary arguments pass, out and in', async (scope, connect) => {
    const client = await connect();
    const [text, bytes] = ['x'.repeat(700_000), Buffer.from(Array.from({ length: 100_000 }, (_, i) => i & 255))];
    assert.equal(await ask(client, 'echo', text), text);
    assert.deepEqual(Buffer.from(await ask(client, 'echo', bytes)), bytes);
  });

  each('4.7: a burst arrives whole, once, in order', async (scope, connect) => {
    const [a, b] = [await connect(), await connect()];
    await ask(a, 'join', 'r');
    assert.equal(await ask(b, 'burst', 'r', 3000, 'tag', 0), 3000);
    await until(() => events(a, 'msg').length >= 3000, 'the burst');
    assert.deepEqual(events(a, 'msg'), Array.from({ length: 3000 }, (_, i) => ['tag', i]));
  });

  each('4.7: a session that is cut resumes', async (scope, connect) => {
    const [a, b] = [await connect(), await connect()];
    const id = a.id;
    await ask(a, 'join', 'r');
    a.emit('cut');
    await until(() => !a.connected, 'the cut');
    await ask(b, 'burst', 'r', 5, 't', 0);
    await connection(a, 2);
    assert.equal(a.id, id);
    await until(() => events(a, 'msg').length >= 5, 'what was missed');
    assert.deepEqual(events(a, 'msg').map(([, i]) => i), [0, 1, 2, 3, 4]);
  });
}

test('4.9: pages are served over the same listener', async (scope) => {
  const lab = await scope.lab(`--tls-cert=${cert}`, `--tls-key=${key}`);
  const status = await new Promise((done, fail) => {
    https.get(`${lab.url.replace('http:', 'https:')}/healthz`, { ca }, (answer) => { answer.resume(); done(answer.statusCode); }).on('error', fail);
  });
  assert.equal(status, 200);
});

main();
