// Editors with the stock `y-websocket` provider: as many as a test wants in one process, each with a name.
//
// One JSON request a line on stdin: {id, op, editor, ...}; one answer a line on stdout: {id, ...} or {id, error}.
// Requests do not wait for each other: an answer comes when what was asked for has happened, and that is found
// through the libraries' own events. The process ends when its input does, so that no test can leave it behind.

import readline from 'node:readline'
import process from 'node:process'
import { appendFileSync } from 'node:fs'
import { createHash } from 'node:crypto'
import 'fake-indexeddb/auto'
import WebSocket from 'ws'
import * as Y from 'yjs'
import { IndexeddbPersistence, storeState } from 'y-indexeddb'
import * as yWebsocket1 from 'y-websocket-1'
import * as yWebsocket2 from 'y-websocket-2'
import * as yWebsocket3 from 'y-websocket'
import * as hocuspocus2 from 'hocuspocus-provider-2'
import * as hocuspocus3 from 'hocuspocus-provider-3'
import * as hocuspocus4 from '@hocuspocus/provider'
import { stream } from '@durable-streams/client'
import { YjsProvider } from '@durable-streams/y-durable-streams'
import { ElectricProvider, parseToDecoder } from '@electric-sql/y-electric'
import { Awareness } from 'y-protocols/awareness'
import { history } from './histories.mjs'

process.setMaxListeners(0)

// The majors that are still in use, by number; the newest is what editors have unless a test wants another.
const Y_WEBSOCKET = { 1: yWebsocket1, 2: yWebsocket2, 3: yWebsocket3 }
const HOCUSPOCUS = { 2: hocuspocus2, 3: hocuspocus3, 4: hocuspocus4 }

const PIECES = ['Typed ', 'by ', 'many ', 'hands, ', 'naïve ', '漢字 ', '😀 ', 'one line\n', 'x', 'another ']

// What came in on every socket of an editor: its message type (and the sync step) with its length.
const recordingSocket = (received, heard) => class extends WebSocket {
  constructor (...args) {
    super(...args)
    this.on('message', data => {
      const bytes = new Uint8Array(data)
      received.push([bytes[0], bytes[0] === 0 ? bytes[1] : null, bytes.length])
      // Behind the provider, which has its own handler.
      setImmediate(heard)
    })
  }
}

class Editor {
  constructor ({ gc = true, ...options }) {
    this.doc = new Y.Doc({ gc })
    this.received = []
    this.closes = []
    this.waiting = new Set()
    this.typing = null
    this.roomName = options.room
    // What was marked and not called saved yet, where somebody asks for that.
    this.isNotingSaved = false
    this.unsaved = []
    this.connect(options)
  }

  connect ({ url, room, connect = true, params = {}, version = 3 }) {
    const { WebsocketProvider } = Y_WEBSOCKET[version]
    const look = () => { for (const check of [...this.waiting]) check() }
    this.provider = new WebsocketProvider(url, room, this.doc, {
      // Two editors of one process would otherwise sync behind the server's back.
      disableBc: true,
      WebSocketPolyfill: recordingSocket(this.received, look),
      connect,
      params
    })
    this.doc.on('afterTransaction', look)
    this.doc.on('subdocs', look)
    for (const event of ['status', 'sync', 'closed']) this.provider.on(event, look)
    this.provider.awareness.on('change', look)
    this.provider.on('connection-close', event => {
      this.closes.push(event === null ? null : { code: event.code, reason: String(event.reason) })
      look()
    })
    this.provider.on('closed', ({ code, reason }) => { this.stopped = { code, reason: String(reason) }; look() })
  }

  // Resolves with the first value of `probe` that is not null or undefined.
  until (probe) {
    return new Promise((resolve, reject) => {
      const check = () => {
        try {
          const value = probe()
          if (value === null || value === undefined) return
          resolve(value)
        } catch (error) {
          reject(error)
        }
        this.waiting.delete(check)
      }
      this.waiting.add(check)
      check()
    })
  }

  get isConnected () { return this.provider.wsconnected }

  text (root = 'text') { return this.doc.getText(root) }

  others () {
    return [...this.provider.awareness.getStates()]
      .filter(([client, state]) => client !== this.doc.clientID && Object.keys(state).length > 0)
      .map(([, state]) => state)
  }

  destroy () {
    clearInterval(this.typing)
    this.provider.destroy()
    this.doc.destroy()
  }
}

// One with the stock Hocuspocus provider. Those that are given the same `socket` share it. `tokens: null` has none.
//
// Version 2 differs: it attaches itself, tells tabs of one process about each other, has numbers for its events where
// later ones have objects, knows no `sendToken`, and lets go of a document that was denied until it is told to connect.
const sockets = new Map()

class HocuspocusEditor extends Editor {
  connect ({ url, room, connect = true, tokens = [''], socket = null, sessionAwareness = false, version = 4 }) {
    this.version = version
    const { HocuspocusProvider, HocuspocusProviderWebsocket } = HOCUSPOCUS[version]
    const look = () => { for (const check of [...this.waiting]) check() }
    const make = () => new HocuspocusProviderWebsocket({
      url, autoConnect: connect, connect, WebSocketPolyfill: recordingSocket(this.received, look), minDelay: 100, delay: 100
    })
    this.websocket = socket === null ? make() : (sockets.get(socket) ?? make())
    if (socket !== null) sockets.set(socket, this.websocket)
    this.unsynced = []
    this.refused = []
    this.scopes = []
    this.words = []
    // Each time that it is asked it gives the next one, the last one for ever.
    const left = [...(tokens ?? [])]
    const token = tokens === null ? null : () => left.length > 1 ? left.shift() : left[0]
    this.provider = new HocuspocusProvider({
      websocketProvider: this.websocket, name: room, document: this.doc, token, sessionAwareness, broadcast: false
    })
    this.doc.on('afterTransaction', look)
    this.doc.on('subdocs', look)
    for (const event of ['status', 'synced', 'disconnect']) this.provider.on(event, look)
    this.provider.on('unsyncedChanges', told => { this.unsynced.push(told.number ?? told); look() })
    this.provider.on('stateless', ({ payload }) => { this.words.push(payload); look() })
    this.provider.on('authenticated', () => { this.scopes.push(this.provider.authorizedScope); look() })
    this.provider.on('authenticationFailed', ({ reason }) => { this.refused.push(reason); look() })
    this.provider.on('close', ({ event }) => {
      this.closes.push({ code: event.code, reason: String(event.reason) })
      look()
    })
    this.provider.awareness.on('change', look)
    if (version > 2) this.provider.attach()
  }

  sendToken () {
    if (this.version > 2) this.provider.sendToken()
    else this.provider.connect()
  }

  get isConnected () { return this.websocket.status === 'connected' }

  destroy () {
    clearInterval(this.typing)
    this.provider.destroy()
    this.websocket.destroy()
    this.doc.destroy()
  }
}

// One with the stock provider of Durable Streams: long polls or events instead of a socket. Its provider reports what
// goes wrong and gives up; who brings it back is the application. Writes to the console are kept off our own output.
console.error = console.warn = (...words) => { process.stderr.write(words.map(String).join(' ') + '\n') }

class DurableEditor extends Editor {
  connect ({ url, room, connect = true, liveMode = 'sse', headers = {} }) {
    const look = () => { for (const check of [...this.waiting]) check() }
    this.errors = []
    this.provider = new YjsProvider({
      doc: this.doc, baseUrl: url, docId: room, awareness: new Awareness(this.doc), liveMode, headers, connect
    })
    this.doc.on('afterTransaction', look)
    for (const event of ['status', 'synced']) this.provider.on(event, look)
    this.provider.on('error', error => { this.errors.push(String(error.message).slice(0, 500)); look() })
    this.provider.awareness.on('change', look)
  }

  get isConnected () { return this.provider.connected }

  destroy () {
    this.provider.awareness.destroy()
    super.destroy()
  }
}

// What a page has and Node has not, and ElectricSQL's client needs for its event streams: nobody ever hides this page.
const likeAPage = () => {
  globalThis.document ??= { addEventListener () {}, removeEventListener () {} }
  globalThis.window ??= { addEventListener () {}, removeEventListener () {}, setTimeout, clearTimeout, fetch }
}

// One with ElectricSQL's stock provider. Its `url` is the server's; every answer is noted as it came, and with
// `holdWrites` the next ones are held back, as on a lost connection.
class ElectricEditor extends Editor {
  connect ({ url, room, connect = true, sse = false, token = null, resume = null, reconnect = false, isPlain = false, bearer = null, backoffMs = 100 }) {
    if (sse) likeAPage()
    this.bearer = bearer
    const look = () => { for (const check of [...this.waiting]) check() }
    this.answers = []
    this.errors = []
    this.statuses = []
    this.isOffline = false
    const at = table => {
      const asked = { table, where: 'document = $1', 'params[1]': room, ...(token === null ? {} : { token }) }
      return new URL(`${url}/v1/shape?${new URLSearchParams(asked)}`)
    }
    const fetchClient = async (asked, options = {}) => {
      if (this.isOffline) throw new TypeError('fetch failed')
      const shown = this.bearer === null ? {} : { Authorization: `Bearer ${this.bearer}` }
      const answer = await fetch(asked, { ...options, headers: { ...options.headers, ...shown } })
      const { searchParams } = new URL(asked)
      this.answers.push({
        method: options.method ?? 'GET',
        table: searchParams.get('table'),
        status: answer.status,
        live: searchParams.get('live') === 'true',
        events: (answer.headers.get('content-type') ?? '').startsWith('text/event-stream'),
        offset: searchParams.get('offset'),
        next: answer.headers.get('electric-offset')
      })
      setImmediate(look)
      return answer
    }
    const sendUrl = at('updates')
    const shape = table => ({
      // Plain: as the client's own documentation has it, nothing of ours but the condition.
      ...(isPlain
        ? { url: `${url}/v1/shape`, params: { table, where: 'document = $1', params: [room], replica: 'full' } }
        : { url: at(table).href }),
      parser: parseToDecoder,
      liveSse: sse,
      fetchClient,
      backoffOptions: { initialDelay: backoffMs, maxDelay: backoffMs * 10, multiplier: 2 },
      onError: error => { this.errors.push({ status: error.status ?? null, message: String(error.message) }); look() }
    })
    const awareness = new Awareness(this.doc)
    this.provider = new ElectricProvider({
      doc: this.doc,
      documentUpdates: { shape: shape('updates'), sendUrl: isPlain ? sendUrl.href : sendUrl, getUpdateFromRow: row => row.op },
      awarenessUpdates: {
        shape: shape('awareness'), sendUrl: at('awareness'), protocol: awareness, getUpdateFromRow: row => row.op
      },
      resumeState: resume ?? undefined,
      fetchClient,
      connect: false
    })
    this.provider.awareness = awareness
    this.doc.on('afterTransaction', look)
    for (const event of ['synced', 'status', 'resumeState']) this.provider.on(event, look)
    this.provider.on('status', ({ status }) => {
      this.statuses.push(status)
      // A write that fails has it stop; what it could not send it keeps.
      if (reconnect && status === 'disconnected') setTimeout(() => this.provider.connect(), backoffMs)
    })
    this.provider.on('resumeState', ({ document }) => {
      this.resume = { document }
      if (document) sendUrl.searchParams.set('handle', document.handle)
    })
    awareness.on('change', look)
    if (connect) this.provider.connect()
  }

  get isConnected () { return this.provider.connected }

  destroy () {
    clearInterval(this.typing)
    this.provider.awareness.destroy()
    this.provider.destroy()
    this.doc.destroy()
  }
}

const plain = value => {
  if (value instanceof Uint8Array) return { binary: Buffer.from(value).toString('base64') }
  if (value instanceof Y.Doc) return { subdocument: value.guid, meta: value.meta }
  if (typeof value === 'bigint') return { bigint: String(value) }
  if (value instanceof Y.AbstractType) return { type: value.constructor.name, ...shown(value) }
  if (Array.isArray(value)) return value.map(plain)
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.keys(value).sort().map(key => [key, plain(value[key])]))
  }
  return value
}

const shown = type => {
  if (type instanceof Y.XmlText || type instanceof Y.Text) return { delta: plain(type.toDelta()), attributes: plain(type.getAttributes()) }
  if (type instanceof Y.XmlElement) {
    return { name: type.nodeName, attributes: plain(type.getAttributes()), children: plain(type.toArray()) }
  }
  if (type instanceof Y.XmlFragment) return { children: plain(type.toArray()) }
  if (type instanceof Y.Map) return { entries: plain(Object.fromEntries(type.entries())) }
  return { items: plain(type.toArray()) }
}

const contentOf = doc => ({
  text: shown(doc.getText('text')),
  array: shown(doc.getArray('array')),
  map: shown(doc.getMap('map')),
  xml: shown(doc.getXmlFragment('xml')),
  deleted: Buffer.from(Y.encodeSnapshot(new Y.Snapshot(Y.createDeleteSetFromStructStore(doc.store), new Map()))).toString('base64')
})

const everyKind = doc => {
  const text = doc.getText('text')
  text.insert(0, 'plain bold 👩‍👩‍👧 é')
  text.format(6, 4, { bold: true })
  text.insertEmbed(0, { image: 'a.png' })
  text.insert(text.length, '😀😀')
  text.delete(text.length - 1, 1)
  const map = doc.getMap('map')
  map.set('bytes', new Uint8Array([0, 1, 2, 254, 255]))
  map.set('nested', new Y.Map([['list', Y.Array.from([1, 'two', null, true, 0.5, { deep: [[]] }])]]))
  map.set('big', 2n ** 53n + 1n)
  map.set('gone', 1)
  map.delete('gone')
  map.set('subdocument', new Y.Doc({ guid: 'the-guid', meta: { title: 'ä' } }))
  doc.getArray('array').push([new Y.Text('in an array'), -7, 'last'])
  const paragraph = new Y.XmlElement('paragraph')
  doc.getXmlFragment('xml').insert(0, [paragraph, new Y.XmlText('beside')])
  paragraph.setAttribute('align', 'left')
  paragraph.insert(0, [new Y.XmlText('inside'), new Y.XmlElement('hard_break')])
}

// Letters that no compression makes small, the same for the same seed.
const letters = (seed, length) => {
  const base = createHash('sha512').update(String(seed)).digest('base64')
  let text = ''
  for (let block = 0; text.length < length; block++) {
    text += createHash('sha512').update(`${base}${block}`).digest('base64').slice(0, 86)
  }
  return text.slice(0, length)
}

const digestOf = text => createHash('sha256').update(text).digest('hex')

const MARKER = /<([\w-]+\.\d+)>/g
const line = (kind, room, marker) => JSON.stringify([kind, room, marker, Date.now() / 1000]) + '\n'

const editors = new Map()
const named = name => {
  const editor = editors.get(name)
  if (editor === undefined) throw new Error(`no editor is named ${name}`)
  return editor
}

const operations = {
  open: ({ editor, ...options }) => { editors.set(editor, new Editor(options)) },
  openHocuspocus: ({ editor, ...options }) => { editors.set(editor, new HocuspocusEditor(options)) },
  openDurable: ({ editor, ...options }) => { editors.set(editor, new DurableEditor(options)) },
  // What it has appended is answered.
  flush: ({ editor }) => named(editor).provider.flush(),
  errors: ({ editor }) => ({ errors: named(editor).errors }),
  untilErrors: ({ editor, count }) => {
    const one = named(editor)
    return one.until(() => one.errors.length >= count ? { errors: one.errors } : null)
  },
  fetch: async ({ url, method, headers = {} }) => {
    const response = await fetch(url, { method, headers })
    return { status: response.status, text: await response.text() }
  },
  // With the stock client of the base protocol, which knows nothing of Yjs.
  readStream: async ({ url, offset }) => {
    const response = await stream({ url, offset, live: false })
    const body = await response.body()
    return { body: Buffer.from(body).toString('base64'), offset: response.offset, upToDate: response.upToDate }
  },
  followStream: async ({ url, offset, live, bytes }) => {
    const found = await stream({ url, offset, live })
    const chunks = []
    await new Promise((resolve, reject) => {
      found.closed.catch(reject)
      found.subscribeBytes(async chunk => {
        chunks.push(Buffer.from(chunk.data))
        if (Buffer.concat(chunks).length >= bytes) resolve()
      })
    })
    found.cancel()
    return { body: Buffer.concat(chunks).toString('base64') }
  },
  // As what a copy that was kept brings: from nobody's connection.
  apply: ({ editor, update }) => { Y.applyUpdate(named(editor).doc, Buffer.from(update, 'base64'), 'kept') },
  openElectric: ({ editor, ...options }) => { editors.set(editor, new ElectricEditor(options)) },
  // Its network, all of it: what is under way goes on, and nothing new reaches anybody.
  setOffline: ({ editor, offline }) => { named(editor).isOffline = offline },
  // The token that its requests show from now on.
  setBearer: ({ editor, bearer }) => { named(editor).bearer = bearer },
  resumeState: ({ editor }) => ({ resume: named(editor).resume }),
  answers: ({ editor }) => ({ answers: named(editor).answers, errors: named(editor).errors, statuses: named(editor).statuses }),
  // Everything that it has typed has been sent, and answered with success.
  untilSent: ({ editor }) => {
    const one = named(editor)
    return one.until(() => one.provider.pendingChanges === null && !one.provider.sendingPendingChanges ? {} : null)
  },
  untilAnswers: ({ editor, status, count, table = 'updates', method = 'GET' }) => {
    const one = named(editor)
    const wanted = answer => answer.status === status && answer.table === table && answer.method === method
    return one.until(() => one.answers.filter(wanted).length >= count ? {} : null)
  },
  detach: ({ editor }) => { named(editor).provider.detach() },
  attach: ({ editor }) => { named(editor).provider.attach() },
  forceSync: ({ editor }) => { named(editor).provider.forceSync() },
  unsynced: ({ editor }) => ({ number: named(editor).provider.unsyncedChanges, seen: named(editor).unsynced }),
  untilSaved: ({ editor }) => {
    const one = named(editor)
    return one.until(() => one.provider.synced && !one.provider.hasUnsyncedChanges ? {} : null)
  },
  untilScopes: ({ editor, count }) => {
    const one = named(editor)
    return one.until(() => one.scopes.length >= count ? { scopes: one.scopes } : null)
  },
  sendStateless: ({ editor, words }) => { named(editor).provider.sendStateless(words) },
  untilWords: ({ editor, count }) => {
    const one = named(editor)
    return one.until(() => one.words.length >= count ? { words: one.words } : null)
  },
  sendToken: ({ editor }) => { named(editor).sendToken() },
  // Its document alone, not the socket that it shares.
  leaveDocument: ({ editor }) => { named(editor).provider.destroy(); editors.delete(editor) },
  untilRefused: ({ editor }) => {
    const one = named(editor)
    return one.until(() => one.refused.length > 0 ? { reason: one.refused.at(-1) } : null)
  },
  destroy: ({ editor }) => { named(editor).destroy(); editors.delete(editor) },
  disconnect: ({ editor }) => { (named(editor).websocket ?? named(editor).provider).disconnect() },
  // As behind a load balancer: the same provider, its next connection elsewhere.
  moveTo: ({ editor, url }) => { named(editor).provider.serverUrl = url },
  connect: ({ editor }) => { (named(editor).websocket ?? named(editor).provider).connect() },
  // The stock store in the browser, under the document's name: it brings what the last tab kept there, and keeps on.
  persist: async ({ editor }) => {
    const one = named(editor)
    one.persistence = new IndexeddbPersistence(one.provider.roomname, one.doc)
    await one.persistence.whenSynced
  },
  // A tab that is closed when everything is in its store.
  closeTab: async ({ editor }) => {
    const one = named(editor)
    one.provider.destroy()
    await storeState(one.persistence)
    one.destroy()
    editors.delete(editor)
  },

  type: ({ editor, text, at, root }) => {
    const typed = named(editor).text(root)
    typed.insert(at ?? typed.length, text)
  },
  erase: ({ editor, at, length }) => { named(editor).text().delete(at, length) },
  keepTyping: ({ editor, everyMs }) => {
    const one = named(editor)
    let number = 0
    one.typing = setInterval(() => one.text().insert(one.text().length, `${number++} `), everyMs)
  },
  // Lines as tests/faults/journal.py has them: written by one call each, so that they outlive this process.
  keepMarking: ({ editor, journal, prefix, everyMs }) => {
    const one = named(editor)
    let number = 0
    one.typing = setInterval(() => {
      const marker = `${prefix}.${number++}`
      appendFileSync(journal, line('attempted', one.roomName, marker))
      one.text().insert(one.text().length, `<${marker}>`)
      if (one.isNotingSaved) one.unsaved.push(marker)
    }, everyMs)
  },
  noteSeen: ({ editor, journal }) => {
    const one = named(editor)
    one.text().observe((event, transaction) => {
      if (transaction.origin !== one.provider) return
      const text = event.changes.delta.map(({ insert }) => typeof insert === 'string' ? insert : '').join('')
      const seen = [...text.matchAll(MARKER)].map(found => line('acked', one.roomName, found[1]))
      if (seen.length > 0) appendFileSync(journal, seen.join(''))
    })
  },
  // Hocuspocus only: whatever was marked counts as acked once the provider says that nothing is unsynced.
  noteSaved: ({ editor, journal }) => {
    const one = named(editor)
    one.isNotingSaved = true
    one.provider.on('unsyncedChanges', () => {
      if (one.provider.hasUnsyncedChanges || !one.provider.synced || one.unsaved.length === 0) return
      appendFileSync(journal, one.unsaved.splice(0).map(marker => line('acked', one.roomName, marker)).join(''))
    })
  },
  stopTyping: ({ editor }) => { clearInterval(named(editor).typing) },
  // Several pieces, so that no single update is over the server's limit.
  paste: ({ editor, seed, bytes, pieceBytes }) => {
    const text = named(editor).text()
    for (let at = 0; at < bytes; at += pieceBytes) {
      text.insert(text.length, letters(`${seed}${at}`, Math.min(pieceBytes, bytes - at)))
    }
  },
  everyKind: ({ editor }) => { everyKind(named(editor).doc) },
  applyHistory: ({ editor, seed }) => {
    for (const update of history(seed).updates) Y.applyUpdate(named(editor).doc, update, 'history')
  },

  state: ({ editor }) => ({ update: Buffer.from(Y.encodeStateAsUpdate(named(editor).doc)).toString('base64') }),
  text: ({ editor, root }) => ({ text: named(editor).text(root).toString() }),
  digest: ({ editor }) => {
    const text = named(editor).text().toString()
    return { length: text.length, digest: digestOf(text) }
  },
  content: ({ editor }) => ({ content: contentOf(named(editor).doc) }),
  received: ({ editor }) => ({ received: named(editor).received }),
  closes: ({ editor }) => ({ closes: named(editor).closes }),
  setPresence: ({ editor, presence }) => { named(editor).provider.awareness.setLocalState(presence) },

  untilSynced: ({ editor }) => { const one = named(editor); return one.until(() => one.provider.synced ? {} : null) },
  untilDisconnected: ({ editor }) => {
    const one = named(editor)
    return one.until(() => !one.isConnected ? {} : null)
  },
  untilStopped: ({ editor }) => { const one = named(editor); return one.until(() => one.stopped) },
  untilCloses: ({ editor, count }) => {
    const one = named(editor)
    return one.until(() => one.closes.length >= count ? { closes: one.closes } : null)
  },
  // Frames as `received` has them: the first byte, and the length.
  untilReceived: ({ editor, first, length, count = 1 }) => {
    const one = named(editor)
    return one.until(() => one.received.filter(([kind, , bytes]) => kind === first && bytes === length).length >= count ? {} : null)
  },
  untilDenied: ({ editor }) => {
    const one = named(editor)
    return one.until(() => one.received.some(([kind]) => kind === 2) ? {} : null)
  },
  untilText: ({ editor, text, root }) => {
    const one = named(editor)
    const typed = one.text(root)
    return one.until(() => typed.length === text.length && typed.toString() === text ? {} : null)
  },
  untilLength: ({ editor, length }) => {
    const one = named(editor)
    const typed = one.text()
    return one.until(() => typed.length >= length ? {} : null)
  },
  untilPresence: ({ editor, presence }) => {
    const one = named(editor)
    const sorted = states => JSON.stringify(states.map(state => JSON.stringify(state)).sort())
    const wanted = sorted(presence)
    return one.until(() => sorted(one.others()) === wanted ? {} : null)
  },

  // Many editors at once, each in a room of its own: each types its room's name there.
  openRooms: async ({ url, prefix, count, write }) => {
    const names = Array.from({ length: count }, (_, i) => `${prefix}${i}`)
    for (const name of names) editors.set(name, new Editor({ url, room: name }))
    await Promise.all(names.map(async name => {
      const one = editors.get(name)
      await one.until(() => one.provider.synced ? true : null)
      if (write) one.text().insert(0, name)
    }))
  },
  untilRoomsShow: async ({ prefix, count }) => {
    await Promise.all(Array.from({ length: count }, (_, i) => `${prefix}${i}`).map(name => {
      const one = named(name)
      return one.until(() => one.text().toString() === name ? true : null)
    }))
  },

  // All these editors show and know the same: whatever one of them sent has reached the others.
  untilSame: ({ names }) => {
    const all = names.map(named)
    const knows = ({ doc }) => {
      const vector = [...Y.decodeStateVector(Y.encodeStateVector(doc))].sort((a, b) => a[0] - b[0])
      return JSON.stringify([vector, contentOf(doc)])
    }
    return new Promise(resolve => {
      const check = () => {
        const [first, ...others] = all.map(({ doc }) => doc.getText('text').length)
        if (others.some(length => length !== first)) return
        const known = knows(all[0])
        if (all.some(one => knows(one) !== known)) return
        for (const one of all) one.waiting.delete(check)
        resolve({})
      }
      for (const one of all) one.waiting.add(check)
      check()
    })
  },

  // So many edits of a text, a map and an array, with pauses of up to so long, the same for the same seed. Answers when
  // they are made, with what it put into the array, from which nobody takes anything.
  editRandomly: async ({ editor, seed, count, pauseMsMax }) => {
    const { doc } = named(editor)
    let state = seed
    const below = limit => {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
      return (state >>> 8) % limit
    }
    const text = doc.getText('text')
    const map = doc.getMap('map')
    const array = doc.getArray('array')
    const put = []
    const edits = [
      () => text.insert(below(text.length + 1), PIECES[below(PIECES.length)]),
      () => { if (text.length > 3) text.delete(below(text.length - 3), 1 + below(3)) },
      () => map.set(`key ${below(6)}`, { by: editor, at: below(1000) }),
      () => map.delete(`key ${below(6)}`),
      () => {
        put.push(`${editor} ${put.length}`)
        array.insert(below(array.length + 1), [put.at(-1)])
      }
    ]
    for (let made = 0; made < count; made++) {
      doc.transact(edits[below(edits.length)])
      await new Promise(resolve => setTimeout(resolve, below(pauseMsMax + 1)))
    }
    return { put }
  },

  // Editors of one document that type in answer to each other, for so long. What each sent is told, in its order.
  converse: async ({ names, seconds, seed }) => {
    const writers = names.map((name, index) => ({ one: named(name), sent: [], state: seed + index }))
    const below = (writer, limit) => {
      writer.state = (Math.imul(writer.state, 1103515245) + 12345) & 0x7fffffff
      return (writer.state >>> 8) % limit
    }
    const edit = writer => {
      const text = writer.one.text()
      if (text.length > 10 && below(writer, 4) === 0) text.delete(below(writer, text.length - 2), 1 + below(writer, 2))
      else text.insert(below(writer, text.length + 1), PIECES[below(writer, PIECES.length)])
    }
    let over = false
    for (const writer of writers) {
      writer.one.doc.on('update', (update, origin) => {
        if (origin !== writer.one.provider) writer.sent.push(Buffer.from(update).toString('base64'))
        else if (!over) setImmediate(() => { if (!over) edit(writer) })
      })
      setImmediate(edit, writer)
    }
    await new Promise(resolve => setTimeout(resolve, seconds * 1000))
    over = true
    return { sent: writers.map(writer => writer.sent) }
  }
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

readline.createInterface({ input: process.stdin }).on('line', answer).on('close', () => process.exit(0))
