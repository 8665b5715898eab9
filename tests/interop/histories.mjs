// Random editing histories: a few editors that work on all shared types, alone and together.
//
// One seed makes one history, always the same. Editors differ in id (some of 53 bits), in garbage collection, in
// undo managers and in how often they sync; what they emit is what a server would be sent, a full state at a
// reconnect included. `history` is one such history; `editing` goes on in phases, between which the editors meet
// what the server has made of the log meanwhile.

import * as Y from 'yjs'

const PIECES = ['a', 'bc', 'hello ', '😀', 'x😀y', '👩‍👩‍👧', 'né', '\n', '漢字', 'z'.repeat(40), '😀😀😀']
const KEYS = ['k', 'title', 'ä', '']
const MARKS = ['bold', 'link']
const ROOTS = {
  text: Y.Text, array: Y.Array, map: Y.Map, xml: Y.XmlFragment, 'naïve root': Y.Text, paragraph: Y.XmlElement, run: Y.XmlText
}

export const randomOf = seed => {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  const below = n => Math.floor(next() * n)
  return { below, pick: list => list[below(list.length)], chance: share => next() < share, share: next }
}

const clientId = random => random.pick([
  () => 1 + random.below(100),
  () => 1 + random.below(2 ** 31),
  () => 2 ** 52 + random.below(2 ** 31) * 2 ** 20 + random.below(2 ** 20)
])()

// What native merges change; see `history` below.
const exotic = (random, seed) => random.pick([
  () => ({ big: 3n + BigInt(random.below(9)), zero: -0 }),
  () => ({ none: undefined, list: [undefined, -(2n ** 63n), NaN, -Infinity, 2 ** 53 - 1, -(2 ** 31), 1e300, 0.1] }),
  () => ({ bytes: [new Uint8Array(random.below(4)), { '': new Uint8Array([0, 255]) }] }),
  () => new Y.Doc({ guid: `sub-${seed}-${random.below(1e6)}`, meta: { title: random.pick(PIECES) }, autoLoad: true }),
  () => new Y.Doc({ guid: '', gc: false, meta: null })
])()

const deeper = (random, levels) => {
  if (levels === 0) return new Y.Text(random.pick(PIECES))
  return random.chance(0.5) ? new Y.Map([[random.pick(KEYS), deeper(random, levels - 1)]]) : Y.Array.from([1, deeper(random, levels - 1)])
}

const value = (random, seed) => random.exotic && random.chance(0.1) ? exotic(random, seed) : random.pick([
  () => random.below(1000) - 500,
  () => random.pick(PIECES),
  () => null,
  () => true,
  () => 0.5 + random.below(9),
  () => random.pick(['', [], {}, false, 70000, -1]),
  () => deeper(random, 1 + random.below(4)),
  () => new Y.XmlElement('p'),
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
  () => text.insertEmbed(
    random.below(text.length + 1),
    random.pick([() => ({ image: 'y.png' }), () => ({ n: [1.5, { é: '😀' }] }), () => new Y.Map([['e', 1]]), () => new Y.XmlElement('img')])(),
    random.chance(0.3) ? { bold: true } : undefined
  ),
  () => text.format(0, text.length, { link: random.pick([{ href: 'x', 'ü': 1 }, null]) }),
  () => text.applyDelta([{ retain: random.below(text.length + 1) }, { insert: random.pick(PIECES), attributes: { bold: true } }]),
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

const rootsOf = doc => Object.entries(ROOTS).map(([name, type]) => doc.get(name, type))

const typesIn = doc => {
  const types = rootsOf(doc)
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
  const undo = random.chance(0.4) ? new Y.UndoManager(rootsOf(doc), { captureTimeout: random.pick([0, 0, 1e6]) }) : null
  return { doc, undo }
}

const sync = (random, from, to, updates) => {
  const update = Y.encodeStateAsUpdate(from.doc, Y.encodeStateVector(to.doc))
  Y.applyUpdate(to.doc, update, 'remote')
  // A reconnect: the server is sent the same as a second step.
  if (random.chance(0.15)) updates.push(random.chance(0.5) ? update : Y.encodeStateAsUpdate(from.doc))
}

const work = (random, editors, seed, steps, updates) => {
  for (let step = 0; step < steps; step++) {
    const editor = random.pick(editors)
    if (editor.undo !== null && random.chance(0.12)) {
      if (random.chance(0.1)) editor.undo.stopCapturing()
      else if (random.chance(0.03)) editor.undo.clear()
      else if (random.chance(0.65)) editor.undo.undo()
      else editor.undo.redo()
    } else if (random.chance(0.2)) {
      editor.doc.transact(() => { for (let i = 0; i < 4; i++) edit(random, editor, seed) })
    } else edit(random, editor, seed)
    if (random.chance(0.25)) sync(random, random.pick(editors), random.pick(editors), updates)
  }
}

// `exotic` adds what native merges do not leave as it is: bigints, undefined, the meta of subdocuments.
export const history = (seed, exotic) => {
  const random = { ...randomOf(seed), exotic }
  const updates = []
  const used = new Set()
  const editors = Array.from({ length: 1 + random.below(4) }, () => editorOf(random, updates, used))
  work(random, editors, seed, 5 + random.below(60), updates)
  return { updates, clients: [...used] }
}

// Editors that work on while the server compacts. A phase begins with what the server would send at that moment: some
// editors reconnect and merge it into what they have, some are closed, new ones open it, the rest stay offline.
export class Editing {
  constructor (seed, exotic) {
    this.seed = seed
    this.random = { ...randomOf(seed), exotic }
    this.used = new Set()
    this.updates = []
    this.editors = Array.from({ length: 1 + this.random.below(3) }, () => editorOf(this.random, this.updates, this.used))
  }

  phase (snapshot, steps) {
    const { random } = this
    const from = this.updates.length
    if (snapshot !== null) {
      for (const editor of this.editors) if (random.chance(0.5)) Y.applyUpdate(editor.doc, snapshot, 'remote')
      if (random.chance(0.3)) this.editors.splice(random.below(this.editors.length), 1)
      while (this.editors.length === 0 || random.chance(0.4)) {
        const editor = editorOf(random, this.updates, this.used)
        Y.applyUpdate(editor.doc, snapshot, 'remote')
        this.editors.push(editor)
      }
    }
    work(random, this.editors, this.seed, 1 + random.below(steps), this.updates)
    return this.updates.slice(from)
  }
}
