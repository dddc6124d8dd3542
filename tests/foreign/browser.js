// Chromium as the client, driven through playwright-core: node browser.js ws://127.0.0.1:PORT
'use strict';

const fs = require('fs');
const http = require('http');
const path = require('path');
const { chromium } = require('playwright-core');

const url = process.argv[2];
const executablePath = process.env.CHROMIUM || '/usr/bin/chromium';

// The page and its two scripts come from an origin of their own.
const scripts = ['cases.js', 'browser_page.js'];
const page = `<!doctype html><meta charset="utf-8"><title>adjourn</title>${
  scripts.map((name) => `<script src="/${name}"></script>`).join('')}`;
const server = http.createServer((request, response) => {
  const name = scripts.find((script) => request.url === `/${script}`);
  response.setHeader('Content-Type', name ? 'text/javascript; charset=utf-8' : 'text/html; charset=utf-8');
  response.end(name ? fs.readFileSync(path.join(__dirname, name)) : page);
});

async function main() {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const browser = await chromium.launch({
    executablePath,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--ignore-certificate-errors',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  let failed = 0;
  let passed = 0;
  try {
    const tab = await browser.newPage();
    await tab.goto(`http://127.0.0.1:${server.address().port}/`);
    for (const [name, reason] of await tab.evaluate(([to, deflate]) => runCases(to, deflate), [url, process.env.ECHO_DEFLATE === '1'])) {
      if (reason === null) passed++;
      else failed++;
      console.log(reason === null ? `ok    chromium: ${name}` : `FAIL  chromium: ${name}: ${reason}`);
    }
  } finally {
    await browser.close();
    server.close();
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

main().catch((error) => {
  console.log(`FAIL  chromium: ${error.message}`);
  console.log('0 passed, 1 failed');
  process.exit(1);
});
