// A page with Tiptap's editor and its stock Collaboration extension, in jsdom: it sets a title before its first sync, as
// Tiptap's applications do, and then connects. `node tiptap.mjs URL ROOM TITLE` prints, in one line of JSON, how the
// connection went, and what the page shows once a second client of the document shows the title too.

import process from 'node:process'
import { JSDOM } from 'jsdom'
import WebSocket from 'ws'
import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'

const { window } = new JSDOM('<!doctype html><div id="page"></div>', { pretendToBeVisual: true })
// What ProseMirror looks for in its global scope; some of it is there already in newer Nodes, and read-only.
const browser = ['navigator', 'document', 'Node', 'Element', 'HTMLElement', 'MutationObserver', 'DOMParser', 'CustomEvent',
  'Event', 'getComputedStyle', 'requestAnimationFrame', 'cancelAnimationFrame', 'getSelection']
for (const name of browser) {
  const value = /^[gcr]/.test(name) ? window[name].bind(window) : window[name]
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true })
}
globalThis.window = window

const { Editor } = await import('@tiptap/core')
const { Document } = await import('@tiptap/extension-document')
const { Paragraph } = await import('@tiptap/extension-paragraph')
const { Text } = await import('@tiptap/extension-text')
const { Collaboration } = await import('@tiptap/extension-collaboration')

const [url, room, title] = process.argv.slice(2)
const end = result => { console.log(JSON.stringify(result)); process.exit(0) }
const connected = doc => {
  const provider = new WebsocketProvider(url, room, doc, { disableBc: true, WebSocketPolyfill: WebSocket })
  provider.on('closed', ({ code, reason }) => end({ closed: code, reason: String(reason) }))
  return provider
}

const doc = new Y.Doc()
const editor = new Editor({
  element: document.getElementById('page'),
  extensions: [Document, Paragraph, Text, Collaboration.configure({ document: doc })]
})
editor.commands.insertContent(title)
const typedBefore = editor.getText()

const provider = connected(doc)
provider.once('sync', () => {
  const other = new Y.Doc()
  const shown = () => other.getXmlFragment('default').toString()
  other.on('update', () => {
    if (shown().includes(title)) end({ closed: null, typedBefore, page: editor.getText(), other: shown() })
  })
  connected(other)
})
