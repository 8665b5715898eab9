// Pages of a real browser, Debian's Chromium without a window, each with a name. Requests and answers are lines of JSON
// as in editors.mjs. The process ends when its input does, and the browser with it.

import { createServer } from 'node:http'
import process from 'node:process'
import readline from 'node:readline'
import { build } from 'esbuild'
import { chromium } from 'playwright-core'

const TIMEOUT = { timeout: 60_000 }
const bundled = await build({
  entryPoints: ['page.mjs'], bundle: true, write: false, format: 'esm', target: 'es2022', logLevel: 'silent'
})
const server = createServer((request, response) => {
  const isScript = request.url === '/page.js'
  response.setHeader('Content-Type', isScript ? 'text/javascript' : 'text/html; charset=utf-8')
  response.end(isScript
    ? bundled.outputFiles[0].contents
    : '<!doctype html><title>page</title><div id="page"></div><script type="module" src="/page.js"></script>')
})
await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
const origin = `http://127.0.0.1:${server.address().port}`
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium' })
const pages = new Map()

const operations = {
  open: async ({ editor, ...options }) => {
    // A context each: two people do not share a browser's storage or channels.
    const page = await (await browser.newContext()).newPage()
    pages.set(editor, page)
    await page.goto(`${origin}/?${new URLSearchParams(options)}`)
    await page.waitForFunction(() => window.editor !== undefined, null, TIMEOUT)
  },
  // With the keyboard, where the caret is.
  type: async ({ editor, text }) => {
    await pages.get(editor).locator('.ProseMirror').focus()
    await pages.get(editor).keyboard.type(text)
  },
  untilShows: async ({ editor, text }) => {
    await pages.get(editor).waitForFunction(wanted => window.editor.getText() === wanted, text, TIMEOUT)
  },
  untilCarets: async ({ editor, users }) => {
    await pages.get(editor).waitForFunction(wanted => {
      const shown = [...document.querySelectorAll('.collaboration-carets__label')].map(label => label.textContent)
      return JSON.stringify(shown.sort()) === JSON.stringify(wanted)
    }, users, TIMEOUT)
  },
  untilSaved: async ({ editor }) => {
    await pages.get(editor).waitForFunction(() => window.provider.synced && !window.provider.hasUnsyncedChanges, null, TIMEOUT)
  },
  untilDisconnected: async ({ editor }) => {
    await pages.get(editor).waitForFunction(
      () => window.provider.configuration.websocketProvider.status !== 'connected', null, TIMEOUT)
  },
  unsynced: async ({ editor }) => ({ number: await pages.get(editor).evaluate(() => window.provider.unsyncedChanges) })
}

const answer = async asked => {
  const { id, op, ...options } = JSON.parse(asked)
  let told
  try {
    told = (await operations[op](options)) ?? {}
  } catch (error) {
    told = { error: String(error?.stack ?? error) }
  }
  process.stdout.write(JSON.stringify({ id, ...told }) + '\n')
}

readline.createInterface({ input: process.stdin }).on('line', answer).on('close', async () => {
  await browser.close()
  process.exit(0)
})
