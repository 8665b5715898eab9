// Yjs as the judge: answers questions about updates, one JSON object a line in, one a line out.
//
// {op: "history", seed, exotic}         -> {updates, clients}: what random editors of all shared types sent
// {op: "compare", left, right, gc, …}   -> {difference}: null, or where two lists of updates, applied, differ
// {op: "describe", updates}             -> what a document shows, has and waits for after them
// {op: "encode", updates}               -> {update}: Y.encodeStateAsUpdate of a document after them
// Updates travel in base64. It ends when its input does, so that no test can leave it behind.

import readline from 'node:readline'
import process from 'node:process'
import * as Y from 'yjs'
import { history } from './histories.mjs'

const bytes = text => new Uint8Array(Buffer.from(text, 'base64'))
const base64 = update => Buffer.from(update).toString('base64')

// After remote changes Yjs deletes format marks that it finds superfluous; which ones depends on what came in one
// transaction, so that equal updates in other portions would differ. The judge's own documents go without.
let judging = false
Object.defineProperty(Y.Text.prototype, '_hasFormatting', {
  get () { return !judging && this._formatted },
  set (formatted) { this._formatted = formatted }
})

const documentOf = (updates, gc = true) => {
  const doc = new Y.Doc({ gc })
  judging = true
  for (const update of updates) Y.applyUpdate(doc, bytes(update))
  judging = false
  return doc
}

const plain = value => {
  if (value instanceof Uint8Array) return { binary: base64(value) }
  if (value instanceof Y.Doc) return { subdocument: value.guid, meta: value.meta }
  if (value === undefined) return { undefined: true }
  if (typeof value === 'bigint') return { bigint: String(value) }
  if (typeof value === 'number' && !Number.isFinite(value)) return { number: String(value) }
  if (Array.isArray(value)) return value.map(plain)
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.keys(value).sort().map(key => [key, plain(value[key])]))
  }
  return value
}

// What is visible in a type, unit by unit with ids, so that neither joins nor cuts of structs show.
const visible = type => {
  const units = []
  for (let item = type._start; item !== null; item = item.right) {
    if (item.deleted) continue
    // One by one: spread into arguments, a long pasted text is more than a call can take.
    for (const unit of unitsOf(item)) units.push(unit)
  }
  const entries = {}
  for (const key of [...type._map.keys()].sort()) {
    const item = type._map.get(key)
    if (!item.deleted) entries[key] = unitsOf(item).at(-1)
  }
  return { name: type.nodeName ?? null, units, entries }
}

const unitsOf = item => {
  const { client, clock } = item.id
  const { content } = item
  const name = content.constructor.name
  if (content instanceof Y.ContentType) return [[client, clock, name, content.type.constructor.name, visible(content.type)]]
  if (content instanceof Y.ContentFormat) return [[client, clock, name, content.key, plain(content.value)]]
  if (content instanceof Y.ContentString) {
    return Array.from({ length: item.length }, (_, i) => [client, clock + i, name, content.str.charCodeAt(i)])
  }
  return content.getContent().map((value, i) => [client, clock + i, name, plain(value)])
}

const joined = ranges => {
  const result = []
  for (const [clock, end] of ranges.sort((a, b) => a[0] - b[0])) {
    const last = result.at(-1)
    if (last && last[1] >= clock) last[1] = Math.max(last[1], end)
    else result.push([clock, end])
  }
  return result
}

const rangesByClient = entries => {
  const clients = new Map()
  for (const [client, clock, length] of entries) {
    if (!clients.has(client)) clients.set(client, [])
    clients.get(client).push([clock, clock + length])
  }
  return [...clients].sort((a, b) => a[0] - b[0]).map(([client, ranges]) => [client, joined(ranges)])
}

const deleteSetRanges = deletes =>
  rangesByClient([...deletes.clients].flatMap(([client, items]) => items.map(item => [client, item.clock, item.len])))

const describe = doc => {
  const shared = {}
  for (const name of [...doc.share.keys()].sort()) shared[name] = visible(doc.share.get(name))
  const pending = doc.store.pendingStructs
  const waiting = pending === null
    ? []
    : Y.decodeUpdateV2(pending.update).structs.filter(struct => !(struct instanceof Y.Skip))
  const pendingDeletes = doc.store.pendingDs
  return {
    shared,
    vector: [...Y.decodeStateVector(Y.encodeStateVector(doc))].sort((a, b) => a[0] - b[0]),
    deleted: deleteSetRanges(Y.createDeleteSetFromStructStore(doc.store)),
    waiting: rangesByClient(waiting.map(struct => [struct.id.client, struct.id.clock, struct.length])),
    missing: pending === null ? [] : [...pending.missing].sort((a, b) => a[0] - b[0]),
    pendingDeletes: pendingDeletes === null ? [] : deleteSetRanges(Y.decodeUpdateV2(pendingDeletes).ds)
  }
}

const compare = (left, right, otherPortions) => {
  for (const part of Object.keys(left)) {
    // Which predecessor Yjs names as missing depends on the portions in which things came; that it waits does not.
    if (otherPortions && part === 'missing') continue
    const [a, b] = [JSON.stringify(left[part]), JSON.stringify(right[part])]
    if (a !== b) {
      let at = 0
      while (a[at] === b[at]) at++
      return `${part} from character ${at}: …${a.slice(Math.max(0, at - 80), at + 120)} against …${b.slice(Math.max(0, at - 80), at + 120)}`
    }
  }
  return null
}

const answers = {
  history: ({ seed, exotic }) => {
    const { updates, clients } = history(seed, exotic)
    return { updates: updates.map(base64), clients }
  },
  compare: ({ left, right, gc, otherPortions }) =>
    ({ difference: compare(describe(documentOf(left, gc)), describe(documentOf(right, gc)), otherPortions) }),
  describe: ({ updates }) => describe(documentOf(updates)),
  encode: ({ updates }) => ({ update: base64(Y.encodeStateAsUpdate(documentOf(updates))) })
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  let answer
  try {
    const question = JSON.parse(line)
    answer = answers[question.op](question)
  } catch (error) {
    answer = { error: String(error?.stack ?? error) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
