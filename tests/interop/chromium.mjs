// One page of a real browser that runs the module given as the first argument; what it logs goes to stdout, line by line.
// Its origin is another port of the loopback, or the one given as the second argument, which the browser finds there.
// The process ends with the first SIGTERM, and the browser with it.

import { createServer } from 'node:http'
import process from 'node:process'
import { build } from 'esbuild'
import { chromium } from 'playwright-core'

const bundled = await build({
  entryPoints: [process.argv[2]], bundle: true, write: false, format: 'esm', target: 'es2022', logLevel: 'silent'
})
const server = createServer((request, response) => {
  const isScript = request.url === '/page.js'
  response.setHeader('Content-Type', isScript ? 'text/javascript' : 'text/html; charset=utf-8')
  response.end(isScript ? bundled.outputFiles[0].contents : '<!doctype html><script type="module" src="/page.js"></script>')
})
const given = process.argv[3] === undefined ? null : new URL(process.argv[3])
await new Promise(resolve => server.listen(Number(given?.port ?? 0), '127.0.0.1', resolve))
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: given === null ? [] : [`--host-resolver-rules=MAP ${given.hostname} 127.0.0.1`]
})
process.on('SIGTERM', async () => { await browser.close(); process.exit(0) })
const page = await browser.newPage()
page.on('console', message => console.log(message.text()))
page.on('pageerror', error => console.log(`error: ${error.message}`))
await page.goto(given?.href ?? `http://127.0.0.1:${server.address().port}/`)
