// Other servers and stores at work, as people have them before they move: node moving.mjs OP '{…}', one JSON answer.
//
// {documents: {name: words}} is what their editors type; the same words twice are typed twice.
//   hocuspocusSqlite {path, documents}        Hocuspocus with extension-sqlite, its stock provider -> {states}
//   readHocuspocusSqlite {path, names}        what such a server then serves                       -> {states}
//   hocuspocusDatabase {documents}            Hocuspocus with extension-database                   -> {stored}: what it was
//                                             given to store, by name
//   hocuspocusS3 {endpoint, bucket, prefix, documents}  likewise, into a bucket under extension-s3's keys -> {states}
//   yLeveldb {path, documents}                y-leveldb's LeveldbPersistence                       -> {states}
//   hooks {}                                  the hooks of Hocuspocus's Extension type             -> {hooks}
//   yWebsocket {path, port, documents}        y-websocket's server with YPERSISTENCE               -> {states}
// States are Y.encodeStateAsUpdate of the editors, of the last one of what it stored, in base64.

import { readFileSync } from 'node:fs'
import process from 'node:process'
import WebSocket from 'ws'
import * as Y from 'yjs'
import { Database } from '@hocuspocus/extension-database'
import { SQLite } from '@hocuspocus/extension-sqlite'
import { HocuspocusProvider, HocuspocusProviderWebsocket } from '@hocuspocus/provider'
import { Server } from '@hocuspocus/server'
import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { LeveldbPersistence } from 'y-leveldb'
import { WebsocketProvider } from 'y-websocket'

const base64 = update => Buffer.from(update).toString('base64')

// A bit of everything that editors write, with something erased.
const edit = (doc, words) => {
  const text = doc.getText('text')
  for (const word of words.split(' ')) text.insert(text.length, word + ' ')
  text.format(0, 3, { bold: true })
  text.delete(text.length - 1, 1)
  doc.getMap('map').set('title', words)
  doc.getMap('map').set('nested', new Y.Map([['count', words.length], ['emoji', '👋🏽']]))
  doc.getArray('array').push([words, { deep: [1, null, true] }, new Uint8Array([1, 2, 3])])
  if (doc.getArray('array').length > 3) doc.getArray('array').delete(0, 2)
  const paragraph = new Y.XmlElement('paragraph')
  doc.getXmlFragment('prosemirror').push([paragraph])
  paragraph.setAttribute('align', 'left')
  paragraph.push([new Y.XmlText(words)])
}

const until = (emitter, event, ready) => new Promise(resolve => {
  const look = () => { if (ready()) resolve() }
  emitter.on(event, look)
  look()
})

// Each document is opened by the stock provider, edited, and closed once the server has said that it has the edits.
const withHocuspocus = async (extension, names, work) => {
  const server = new Server({ port: 0, address: '127.0.0.1', quiet: true, stopOnSignals: false, extensions: [extension], debounce: 50 })
  await server.listen()
  const states = {}
  for (const name of names) {
    const socket = new HocuspocusProviderWebsocket({ url: server.webSocketURL, WebSocketPolyfill: WebSocket })
    const doc = new Y.Doc()
    const provider = new HocuspocusProvider({ websocketProvider: socket, name, document: doc, token: '' })
    provider.attach()
    await until(provider, 'synced', () => provider.isSynced ?? provider.synced)
    work(doc, name)
    await until(provider, 'unsyncedChanges', () => !provider.hasUnsyncedChanges)
    states[name] = base64(Y.encodeStateAsUpdate(doc))
    provider.destroy()
    socket.destroy()
  }
  await server.destroy()
  return states
}

const operations = {
  hocuspocusSqlite: async ({ path, documents }) => ({
    states: await withHocuspocus(new SQLite({ database: path }), Object.keys(documents), (doc, name) => edit(doc, documents[name]))
  }),
  readHocuspocusSqlite: async ({ path, names }) => ({
    states: await withHocuspocus(new SQLite({ database: path }), names, () => {})
  }),
  hocuspocusDatabase: async ({ documents }) => {
    const stored = {}
    await withHocuspocus(new Database({
      fetch: async () => null,
      store: async ({ documentName, state }) => { stored[documentName] = base64(state) }
    }), Object.keys(documents), (doc, name) => edit(doc, documents[name]))
    return { stored }
  },
  hocuspocusS3: async ({ endpoint, bucket, prefix, documents }) => {
    const client = new S3Client({
      endpoint, region: 'us-east-1', forcePathStyle: true, credentials: { accessKeyId: 'a', secretAccessKey: 'b' }
    })
    const key = name => ({ Bucket: bucket, Key: `${prefix}${name}.bin` })
    const states = await withHocuspocus(new Database({
      fetch: async ({ documentName }) => {
        try {
          return await (await client.send(new GetObjectCommand(key(documentName)))).Body.transformToByteArray()
        } catch (error) {
          if (error.name === 'NoSuchKey') return null
          throw error
        }
      },
      store: async ({ documentName, state }) => {
        await client.send(new PutObjectCommand({ ...key(documentName), Body: state, ContentType: 'application/octet-stream' }))
      }
    }), Object.keys(documents), (doc, name) => edit(doc, documents[name]))
    return { states }
  },
  yLeveldb: async ({ path, documents }) => {
    const persistence = new LeveldbPersistence(path)
    const states = {}
    for (const [name, words] of Object.entries(documents)) {
      const doc = await persistence.getYDoc(name)
      const updates = []
      doc.on('update', update => updates.push(update))
      edit(doc, words)
      for (const update of updates) await persistence.storeUpdate(name, update)
      await persistence.setMeta(name, 'update', 'not an update')
      states[name] = base64(Y.encodeStateAsUpdate(doc))
    }
    await persistence.destroy()
    return { states }
  },
  yWebsocket: async ({ path, port, documents }) => {
    Object.assign(process.env, { YPERSISTENCE: path, HOST: '127.0.0.1', PORT: String(port) })
    await import('./node_modules/@y/websocket-server/src/server.js')
    const { getPersistence } = await import('./node_modules/@y/websocket-server/src/utils.js')
    const states = {}
    for (const [name, words] of Object.entries(documents)) {
      const open = async () => {
        const provider = new WebsocketProvider(`ws://127.0.0.1:${port}`, name, new Y.Doc(), { WebSocketPolyfill: WebSocket, disableBc: true })
        await until(provider, 'sync', () => provider.synced)
        return provider
      }
      const writer = await open()
      edit(writer.doc, words)
      const reader = await open()
      const same = () => base64(Y.encodeStateVector(reader.doc)) === base64(Y.encodeStateVector(writer.doc))
      // What it had stored comes to both a moment later, to either one last.
      await Promise.race([until(reader.doc, 'update', same), until(writer.doc, 'update', same)])
      writer.destroy()
      reader.destroy()
    }
    // It stores without waiting: what it reads when a document is opened comes first, and then what was typed.
    const { provider } = getPersistence()
    await provider._transact(async () => {})
    // Its editors may type before it has read what it stored of the document: they see that a moment later.
    for (const name of Object.keys(documents)) states[name] = base64(Y.encodeStateAsUpdate(await provider.getYDoc(name)))
    await provider.destroy()
    return { states }
  },
  hooks: async () => {
    const types = readFileSync('node_modules/@hocuspocus/server/src/types.ts', 'utf8')
    const names = types.match(/export type HookName =([^;]*);/)[1].match(/\w+/g)
    return { hooks: names }
  }
}

const [operation, options] = process.argv.slice(2)
process.stdout.write(JSON.stringify(await operations[operation](JSON.parse(options))) + '\n')
process.exit(0)
