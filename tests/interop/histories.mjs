// Random editing histories: a few editors that work on all shared types, alone and together.
//
// One seed makes one history, always the same. Editors differ in id (some of 53 bits), in garbage collection and
// in how often they sync; what they emit is what a server would be sent, a full state at a reconnect included.

import * as Y from 'yjs'

const PIECES = ['a', 'bc', 'hello ', '😀', 'x😀y', '👩‍👩‍👧', 'né', '\n', '漢字', 'z'.repeat(40), '😀😀😀']
const KEYS = ['k', 'title', 'ä']
const MARKS = ['bold', 'link']

const randomOf = seed => {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  const below = n => Math.floor(next() * n)
  return { below, pick: list => list[below(list.length)], chance: share => next() < share }
}

const clientId = random => random.pick([
  () => 1 + random.below(100),
  () => 1 + random.below(2 ** 31),
  () => 2 ** 52 + random.below(2 ** 31) * 2 ** 20 + random.below(2 ** 20)
])()

// What native merges change; see `exotic` below.
const exotic = (random, seed) => random.pick([
  () => ({ big: 3n + BigInt(random.below(9)), zero: -0 }),
  () => new Y.Doc({ guid: `sub-${seed}-${random.below(1e6)}`, meta: { title: random.pick(PIECES) }, autoLoad: true })
])()

const value = (random, seed) => random.exotic && random.chance(0.1) ? exotic(random, seed) : random.pick([
  () => random.below(1000) - 500,
  () => random.pick(PIECES),
  () => null,
  () => true,
  () => 0.5 + random.below(9),
  () => ({ nested: [1, { deeper: random.pick(PIECES) }] }),
  () => new Uint8Array([1, 2, random.below(256)]),
  () => new Y.Map([['in', random.below(9)]]),
  () => Y.Array.from([1, 'two', random.below(9)]),
  () => new Y.Text(random.pick(PIECES)),
  () => new Y.Doc({ guid: `sub-${seed}-${random.below(1e6)}` })
])()

const editText = (random, text) => random.pick([
  () => text.insert(random.below(text.length + 1), random.pick(PIECES)),
  () => text.insert(text.length, random.pick(PIECES)),
  () => text.insert(random.below(text.length + 1), random.pick(PIECES), { [random.pick(MARKS)]: random.chance(0.5) || null }),
  () => {
    // Offsets are UTF-16 units, so now and then one half of an emoji goes.
    const at = random.below(text.length + 1)
    text.delete(at, Math.min(1 + random.below(6), text.length - at))
  },
  () => {
    const at = random.below(text.length + 1)
    text.format(at, Math.min(1 + random.below(9), text.length - at), { [random.pick(MARKS)]: random.pick([true, null, 'x']) })
  },
  () => text.insertEmbed(random.below(text.length + 1), random.pick([{ image: 'y.png' }, new Y.Map([['e', 1]])])),
  () => text.delete(0, text.length),
  () => text.setAttribute(random.pick(KEYS), random.below(9))
])()

const editArray = (random, array, seed) => random.pick([
  () => array.insert(random.below(array.length + 1), Array.from({ length: 1 + random.below(4) }, () => random.below(99))),
  () => array.push([value(random, seed)]),
  () => array.insert(random.below(array.length + 1), [value(random, seed), random.pick(PIECES)]),
  () => {
    const at = random.below(array.length + 1)
    array.delete(at, Math.min(1 + random.below(3), array.length - at))
  }
])()

const editMap = (random, map, seed) => random.pick([
  () => map.set(random.pick(KEYS), value(random, seed)),
  () => map.set(random.pick(KEYS), random.below(99)),
  () => map.delete(random.pick(KEYS))
])()

const editXml = (random, parent) => random.pick([
  () => {
    const element = new Y.XmlElement(random.pick(['p', 'ul', 'naïve']))
    parent.insert(random.below(parent.length + 1), [element])
    element.setAttribute('id', String(random.below(99)))
    if (random.chance(0.6)) element.insert(0, [new Y.XmlText(random.pick(PIECES)), new Y.XmlElement('li')])
  },
  () => parent.insert(random.below(parent.length + 1), [new Y.XmlText(random.pick(PIECES))]),
  () => {
    const at = random.below(parent.length + 1)
    parent.delete(at, Math.min(1 + random.below(2), parent.length - at))
  },
  () => { if (parent instanceof Y.XmlElement) parent.setAttribute(random.pick(KEYS), random.pick(PIECES)) },
  () => { if (parent instanceof Y.XmlElement) parent.removeAttribute(random.pick(KEYS)) }
])()

const typesIn = doc => {
  const types = [doc.getText('text'), doc.getArray('array'), doc.getMap('map'), doc.getXmlFragment('xml')]
  for (const type of types) {
    for (let item = type._start; item !== null; item = item.right) {
      if (!item.deleted && item.content instanceof Y.ContentType) types.push(item.content.type)
    }
    for (const item of type._map.values()) {
      if (!item.deleted && item.content instanceof Y.ContentType) types.push(item.content.type)
    }
  }
  return types
}

const edit = (random, editor, seed) => {
  const { doc } = editor
  const type = random.pick(typesIn(doc))
  if (type instanceof Y.Text) {
    if (random.chance(0.3)) {
      // Typed in one go, one update a letter: what a merge is full of, and a fold joins.
      let at = random.below(type.length + 1)
      for (const letter of 'typed 😀') {
        type.insert(at, letter)
        at += letter.length
      }
    } else editText(random, type)
  } else if (type instanceof Y.Array) editArray(random, type, seed)
  else if (type instanceof Y.XmlFragment) editXml(random, type)
  else if (type instanceof Y.Map) editMap(random, type, seed)
}

const editorOf = (random, updates, used) => {
  const doc = new Y.Doc({ gc: random.chance(0.7) })
  do doc.clientID = clientId(random); while (used.has(doc.clientID))
  used.add(doc.clientID)
  doc.on('update', (update, origin) => { if (origin !== 'remote') updates.push(update) })
  const roots = [doc.getText('text'), doc.getArray('array'), doc.getMap('map'), doc.getXmlFragment('xml')]
  const undo = random.chance(0.4) ? new Y.UndoManager(roots, { captureTimeout: 0 }) : null
  return { doc, undo }
}

const sync = (random, from, to, updates) => {
  const update = Y.encodeStateAsUpdate(from.doc, Y.encodeStateVector(to.doc))
  Y.applyUpdate(to.doc, update, 'remote')
  // A reconnect: the server is sent the same as a second step.
  if (random.chance(0.15)) updates.push(random.chance(0.5) ? update : Y.encodeStateAsUpdate(from.doc))
}

// `exotic` adds what native merges do not leave as it is: bigints and the meta of subdocuments.
export const history = (seed, exotic) => {
  const random = { ...randomOf(seed), exotic }
  const updates = []
  const used = new Set()
  const editors = Array.from({ length: 1 + random.below(4) }, () => editorOf(random, updates, used))
  const steps = 5 + random.below(60)
  for (let step = 0; step < steps; step++) {
    const editor = random.pick(editors)
    if (editor.undo !== null && random.chance(0.08)) {
      if (random.chance(0.7)) editor.undo.undo()
      else editor.undo.redo()
    } else if (random.chance(0.2)) {
      editor.doc.transact(() => { for (let i = 0; i < 4; i++) edit(random, editor, seed) })
    } else edit(random, editor, seed)
    if (random.chance(0.25)) sync(random, random.pick(editors), random.pick(editors), updates)
  }
  return { updates, clients: [...used] }
}
