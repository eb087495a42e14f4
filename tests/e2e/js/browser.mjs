// Headless Chromium on one page: what the page logs goes out as lines. Arguments: the browser, the page's address.
import { chromium } from 'playwright-core';

const [executablePath, address] = process.argv.slice(2);
const args = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];
const browser = await chromium.launch({ executablePath, headless: true, args });
const page = await browser.newPage();
page.on('console', (message) => console.log(message.text()));
page.on('pageerror', (error) => console.log(JSON.stringify({ event: 'pageerror', message: String(error) })));
await page.goto(address);
process.stdin.resume();
process.stdin.on('end', async () => {
  await browser.close();
  process.exit(0);
});
